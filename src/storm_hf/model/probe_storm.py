"""One short prompt through a new STORM, along every way that a thought takes: what does not agree is no backbone for it.

Whether a backbone takes fed embeddings, keeps the positions that it is given, and has a head that we compute as it does, no
configuration says. So `from_backbone` thinks once with two latents, on a prompt of a few tokens without a clip, and compares.

Axes: B batch, S sequence, D hidden size, V vocabulary.
"""

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from .errors_storm import BackboneError, StormError
from .head_storm import possible_scales, scale_and_cap


_NUM_WORDS, _NUM_LATENTS, _NUM_PADDING = 5, 2, 3
_TOLERANCE, _ROUGH_TOLERANCE = (
    2e-3,
    0.15,
)  # of the logits' size; the rough one for 16-bit or quantized weights and TF32
_GENERATION = {
    "num_latents": _NUM_LATENTS,
    "max_new_tokens": 2,
    "min_new_tokens": 2,
    "do_sample": False,
    "num_beams": 1,
    "use_cache": True,
    "cache_implementation": "dynamic",
    "return_dict_in_generate": True,
    "output_logits": True,
}

logger = logging.getLogger(__name__)


def can_probe(model: PreTrainedModel) -> bool:
    """Check that all weights are on this process and on a device that computes."""
    whole = all(
        parameter.device.type != "meta" and not hasattr(parameter, "ds_id") and not hasattr(parameter, "device_mesh")
        for parameter in model.parameters()
    )
    if not whole:
        logger.debug("The backbone was not tried out: its weights are sharded, offloaded or not loaded yet.")
    return whole


def keep_layout(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in a pass without gradients, after which they cannot be trained with.

    It does so on processors with AVX512-BF16, the first time that a layer answers in evaluation mode.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@torch.no_grad()
def probe_backbone(model: Any) -> None:
    """Try a new STORM out, and measure the factor of its backbone's head.

    Args:
        model ([`StormForConditionalGeneration`]):
            With loaded weights and latent tokens.

    Raises:
        BackboneError: If a step crashes, or two ways that must agree do not. It names the step.
    """
    before = [(module, dict(vars(module))) for module in model.modules()]  # some keep offsets of the last prompt
    model.eval()
    keep_layout(model)
    try:
        with torch.autocast(model.device.type, enabled=False):
            _Probe(model).run()
    finally:
        for module, state in before:
            vars(module).update(state)


class _Probe:
    """The steps of the probe, each on one row of words and a block of two latents."""

    def __init__(self, model: Any) -> None:
        self.model, self.backbone = model, model.backbone
        start_id, latent_id, end_id = model.config.latent_block_ids
        words = self._words()
        self.words = torch.tensor([words], device=model.device)
        block = [start_id, *[latent_id] * _NUM_LATENTS, end_id]
        self.prompt = torch.tensor([[*words, *block, words[0]]], device=model.device)
        uses_tf32 = model.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        is_rough = model.dtype.itemsize < 4 or getattr(model, "is_quantized", False) or uses_tf32
        self.tolerance = _ROUGH_TOLERANCE if is_rough else _TOLERANCE

    def _words(self) -> list[int]:
        """Some ordinary tokens: no placeholders, no latent tokens, none of the ends of a text."""
        config = self.model.config
        text_config = config.get_text_config()
        special = {*config.vision_token_ids, *config.latent_block_ids}
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            ids = getattr(text_config, name, None)
            special |= set(ids) if isinstance(ids, list) else {ids}
        ordinary = (
            token_id for token_id in range(config.vocab_size // 3, config.vocab_size) if token_id not in special
        )
        return list(islice(ordinary, _NUM_WORDS))

    def run(self) -> None:
        """Take all steps."""
        own = self._step(
            "one pass of the backbone alone", lambda: self.backbone(input_ids=self.words, use_cache=False).logits
        )
        states = self._step(
            "a pass of its `base_model`, which has to return `last_hidden_state`",
            lambda: self.model.model(input_ids=self.words, use_cache=False).last_hidden_state,
        )
        self.model.config.logits_scale = self._measured_scale(states, own)
        self._compare(
            "its head on the states of its body, against its own logits", self.model.compute_logits(states), own
        )
        mask = torch.ones_like(self.prompt)
        rolled = self._step("a rollout of two latents", lambda: self.model(input_ids=self.prompt, attention_mask=mask))
        self._check_forced(rolled, mask)
        self._check_generated("a prompt with a cache", self.prompt, mask, rolled)
        self._check_padded(rolled)

    def _check_forced(self, rolled: Any, mask: torch.Tensor) -> None:
        forced = self._step(
            "teacher forcing with the latents of the rollout, in one pass",
            lambda: self.model(
                input_ids=self.prompt, attention_mask=mask, forced_latents=rolled.latents, use_cache=False
            ),
        )
        self._compare("teacher forcing, against the rollout", forced.logits, rolled.logits)

    def _check_padded(self, rolled: Any) -> None:
        prompt = torch.nn.functional.pad(self.prompt, (_NUM_PADDING, 0), value=int(self.words[0, 0]))
        mask = torch.nn.functional.pad(torch.ones_like(self.prompt), (_NUM_PADDING, 0))
        padded = self._step(
            "a rollout after padding on the left", lambda: self.model(input_ids=prompt, attention_mask=mask)
        )
        self._compare("a padded row, against the row alone", padded.logits[:, _NUM_PADDING:], rolled.logits)
        self._check_generated("a padded prompt with a cache", prompt, mask, padded)

    def _check_generated(self, step: str, prompt: torch.Tensor, mask: torch.Tensor, whole: Any) -> None:
        """Read all but the last token with a cache and the last one after it, as `generate` does, against one pass."""
        last = int(prompt[0, -1])
        output = self._step(
            step,
            lambda: self.model.generate(
                input_ids=prompt[:, :-1],
                attention_mask=mask[:, :-1],
                prefix_allowed_tokens_fn=lambda *_: [last],
                **_GENERATION,
            ),
        )
        self._compare(f"{step}, against one pass", torch.stack(output.logits, dim=1), whole.logits[:, -2:])

    def _measured_scale(self, states: torch.Tensor, own: torch.Tensor) -> float:
        """The factor, of those that the settings of the backbone could mean, with which our head gives its logits."""
        text_config = self.model.config.get_text_config()
        raw = self.model.get_output_embeddings()(states)

        def distance(scale: float) -> float:
            return float((scale_and_cap(raw, scale, text_config).float() - own.float()).abs().max())

        return float(min(possible_scales(text_config), key=distance))

    def _step(self, step: str, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except StormError as error:
            raise self._refusal(f"{step} fails: {error}") from error
        except Exception as error:  # whatever a backbone of others raises
            reason = next(iter(str(error).splitlines()), "")
            raise self._refusal(f"{step} fails with {type(error).__name__}: {reason}") from error

    def _compare(self, step: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        difference = float((found.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-12))
        if not difference <= self.tolerance:  # NaN differs too
            raise self._refusal(f"{step}, differs by {difference:.1%}")

    def _refusal(self, what: str) -> BackboneError:
        return BackboneError(
            f"A {type(self.backbone).__name__} cannot think in latents: {what}. Use a backbone of the table in docs/backbones.md, or "
            "report this one."
        )
