"""From a plain video-language checkpoint to a STORM: the same weights, a new projector, three new tokens.

A backbone's own forward pass runs its body and its head at once, and a rollout needs the two apart. Whether a backbone takes fed
embeddings, keeps the positions that it is given, and has a head that we compute as it does, no configuration says. So
`from_backbone` thinks once with two latents, on a prompt of a few tokens without a clip, and compares.

Axes: B batch, S sequence, D hidden size, V vocabulary.
"""

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any, Self

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from .configuration_storm import StormConfig
from .errors_storm import BackboneError, ConfigurationError, StormError
from .processing_storm import LATENT_TOKENS, add_latent_tokens
from .thought_adapter_storm import as_saved, insert_thought_adapter, merge_thought_adapter


_NUM_SAMPLED_TOKENS = 4096
_PLACE_ARGUMENTS = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "trust_remote_code")
_OWN_ARGUMENTS = ("config", "key_mapping", "output_loading_info")


class FromBackboneMixin:
    """Gives a model `from_backbone`."""

    from_pretrained: Callable[..., Any]
    get_decoder: Callable[..., Any]
    config: StormConfig

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str,
        num_latents: int = 8,
        *,
        processor: transformers.ProcessorMixin | None = None,
        latent_projector: str = "linear",
        latent_scale: float | None = None,
        latent_attention: str = "full",
        thought_adapter: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> Self:
        """Make a STORM of a plain video-language checkpoint: its weights, a new projector, three new tokens.

        Args:
            name_or_path (`str`):
                A checkpoint of `AutoModelForImageTextToText`, on the Hub or in a folder.
            num_latents (`int`, *optional*, defaults to `8`):
                Number K of latent steps. `max_num_latents` is raised to it where it is more.
            processor ([`~transformers.ProcessorMixin`], *optional*):
                The processor that will be used. By default the checkpoint's own. Latent tokens are added if missing.
            latent_projector (`str`, *optional*, defaults to `"linear"`):
                See [`StormConfig`].
            latent_scale (`float`, *optional*):
                See [`StormConfig`]. By default the root mean square of embedded tokens, and 1 for `latent_projector="identity"`.
            latent_attention (`str`, *optional*, defaults to `"full"`):
                See [`StormConfig`].
            thought_adapter (`dict`, *optional*):
                See [`StormConfig`].
            kwargs:
                Passed to `from_pretrained`; a `revision` and what else says where the checkpoint lies also holds for its
                configuration and its processor.

        Raises:
            BackboneError: If the checkpoint is not a video-language model, is a STORM already, or does not think as it should on a
                short prompt; the error names the step that failed.
            ConfigurationError: If an argument is out of its range, or one that `from_backbone` sets itself.
        """
        _refuse_arguments(thought_adapter, kwargs)
        place = {name: kwargs[name] for name in _PLACE_ARGUMENTS if name in kwargs}
        processor = processor or transformers.AutoProcessor.from_pretrained(name_or_path, **place)
        tokenizer = add_latent_tokens(processor, num_latents).tokenizer
        token_ids = tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
        config = StormConfig(
            vlm_config=_plain_config(name_or_path, place),
            num_latents=num_latents,
            max_num_latents=max(num_latents, StormConfig.max_num_latents),
            latent_start_token_id=token_ids[0],
            latent_token_id=token_ids[1],
            latent_end_token_id=token_ids[2],
            latent_projector=latent_projector,
            latent_scale=1.0 if latent_scale is None else latent_scale,
            latent_attention=latent_attention,
        )
        model = cls._with_weights_of(name_or_path, config, **kwargs)
        if latent_scale is None and latent_projector != "identity":
            model.config.latent_scale = _size_of_embedded_tokens(model)
        if max(token_ids) >= model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        if can_probe(model):
            probe_backbone(model)
        if thought_adapter is not None:
            model.add_thought_adapter(**thought_adapter)
        return model

    def add_thought_adapter(self, **settings: object) -> None:
        """Put low-rank updates on the language model that act from `<|latent_start|>` on; the trainers then train them.

        At first they change nothing. Without a latent block they never do: there the model stays its backbone, to the last bit.

        Args:
            settings:
                Arguments of [`~peft.LoraConfig`], such as `r` and `lora_alpha`. By default they are on every linear projection.

        Raises:
            DependencyError: If `peft` is not installed.
            ConfigurationError: If these are no such arguments, if they change other weights or cannot be saved, or if there is a
                thought adapter.
        """
        settings = as_saved(settings)
        insert_thought_adapter(self.get_decoder(), settings)
        self.config.thought_adapter = settings

    def merge_thought_adapter(self) -> None:
        """Add the updates of the thought adapter to the weights, which then are another model's, everywhere."""
        merge_thought_adapter(self.get_decoder())
        self.config.thought_adapter = None

    @classmethod
    def _with_weights_of(cls, name_or_path: str, config: StormConfig, **kwargs: object) -> Any:
        model = cls.from_pretrained(name_or_path, config=config, key_mapping={r"^": "model.backbone."}, **kwargs)
        # save_pretrained would revert the key mapping and write names that from_pretrained cannot read back.
        model._weight_conversions = [
            conversion for conversion in model._weight_conversions if conversion.source_patterns != ["^"]
        ]
        return model


def _refuse_arguments(thought_adapter: object, others: dict[str, object]) -> None:
    """Refuse, before anything is loaded, what cannot be an adapter, and arguments of `from_pretrained` that are made here."""
    if not isinstance(thought_adapter, dict | None):
        raise ConfigurationError(
            "Expected `thought_adapter` to be a dict with arguments of a LoraConfig, such as `{'r': 16}`, got "
            f"{type(thought_adapter).__name__}. Write it so, or leave it out."
        )
    if taken := [name for name in _OWN_ARGUMENTS if name in others]:
        raise ConfigurationError(
            f"`from_backbone` makes the configuration and reads the weights itself, and got `{taken[0]}`. Leave it out, and set "
            "`model.config` afterwards, or open a STORM with `from_pretrained`."
        )


def _plain_config(name_or_path: str, place: dict[str, Any]) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(name_or_path, **place)
    if config.model_type == StormConfig.model_type:
        raise BackboneError(
            f"Expected a plain checkpoint to make a STORM of, got {name_or_path}, which is one. Open it with `from_pretrained`."
        )
    return config


def build_backbone(config: StormConfig) -> PreTrainedModel:
    """Make the video-language model of a configuration, with weights of chance.

    Raises:
        BackboneError: If it is not one, or the configuration was read from a plain checkpoint.
    """
    if config.max_num_latents == 0 and config.latent_start_token_id is None:
        raise BackboneError(
            "Expected the checkpoint of a STORM, got a plain one of the type "
            f"`{getattr(config.vlm_config, 'model_type', None)}`. Make a STORM of it with "
            "`StormForConditionalGeneration.from_backbone`."
        )
    if getattr(config.vlm_config, "vision_config", None) is None:
        raise BackboneError(
            "STORM needs a video-language backbone of `AutoModelForImageTextToText`, got a "
            f"`{getattr(config.vlm_config, 'model_type', None)}` configuration without a vision part. Use for example "
            "Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM or InternVL."
        )
    return AutoModelForImageTextToText.from_config(config.vlm_config)


@torch.no_grad()
def _size_of_embedded_tokens(model: PreTrainedModel) -> float:
    """Root mean square of embedded tokens, which some backbones scale in their embedding, over a sample of the vocabulary."""
    embedding = model.get_input_embeddings()
    weights = [weight for weight in embedding.parameters() if hasattr(weight, "ds_id")]  # pieces, with ZeRO-3
    for weight in weights:
        weight.all_gather()
    device = (
        "cpu" if embedding.weight.device.type == "meta" else embedding.weight.device
    )  # offloaded ones move what they get
    num_tokens = embedding.num_embeddings
    ids = torch.linspace(0, num_tokens - 1, min(num_tokens, _NUM_SAMPLED_TOKENS), device=device).long()
    try:
        size = float(embedding(ids[None]).float().pow(2).mean().sqrt())
    except (NotImplementedError, RuntimeError, ValueError) as error:  # an offloaded matrix that cannot be read
        raise BackboneError(
            f"Expected token embeddings that can be looked at, to measure `latent_scale`, but that fails: {error} Load the "
            "embedding on a device, or pass `latent_scale`."
        ) from error
    for weight in weights:
        weight.partition()
    return size


_MULTIPLIERS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
_DIVISOR = "logits_scaling"  # but HyperCLOVA X multiplies by it
_SOFT_CAP = "final_logit_softcapping"


def scale_of_settings(text_config: PreTrainedConfig) -> float:
    """The factor of a head as the names of its settings suggest it."""
    scale = 1.0
    for name in _MULTIPLIERS:
        if (factor := getattr(text_config, name, None)) is not None:
            scale *= factor
    if (divisor := getattr(text_config, _DIVISOR, None)) is not None:
        scale /= divisor
    return scale


def scale_and_cap(logits: torch.Tensor, scale: float, text_config: PreTrainedConfig) -> torch.Tensor:
    """Scale what a head gives, and cap it softly where the backbone does, as in Gemma."""
    if scale != 1.0:
        logits = logits * scale
    if (cap := getattr(text_config, _SOFT_CAP, None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _possible_scales(text_config: PreTrainedConfig) -> list[float]:
    """Factors that a head may have, the likely one first: its settings mean one thing here and another there."""
    scales = [scale_of_settings(text_config), 1.0]
    for name in (*_MULTIPLIERS, _DIVISOR):
        if value := getattr(text_config, name, None):
            scales += [value, 1 / value]
    return scales


def name_experts(text_config: PreTrainedConfig) -> None:
    """Give the number of experts the name by which TRL's auxiliary loss asks for it, where a backbone has another one."""
    if hasattr(text_config, "router_aux_loss_coef") and not hasattr(text_config, "num_experts"):
        for name in ("num_local_experts", "n_routed_experts"):
            if (number := getattr(text_config, name, None)) is not None:
                text_config.num_experts = number
                return


def load_balancing_loss(
    router_logits: tuple[torch.Tensor, ...], text_config: PreTrainedConfig, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """Auxiliary loss of a backbone with experts, before its coefficient.

    Args:
        router_logits (`tuple[torch.Tensor, ...]`):
            Of every layer with experts, each of shape `(batch_size * sequence_length, num_experts)`.
        text_config ([`PreTrainedConfig`]):
            Says how many experts a token has.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 where a token is.
    """
    return load_balancing_loss_func(
        router_logits, router_logits[0].shape[-1], text_config.num_experts_per_tok, attention_mask
    )


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
def probe_backbone(model: PreTrainedModel) -> None:
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

        return float(min(_possible_scales(text_config), key=distance))

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
