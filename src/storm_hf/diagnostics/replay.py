"""Replay of the same questions, each time with other latents; the prompt of each is computed once.

Clip and question come before the latents, so what is computed for them is shared by all interventions: the prompt runs up to
the start token, and each intervention goes on from a copy of that cache, through the same `generate` that answers. Where latents
keep to their step (`latent_attention="step"`) a prompt with latents is read whole, each time.

Axes: B batch, S sequence, L answer tokens, M options, K latent steps, D hidden size, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import kl_div, log_softmax
from transformers import DynamicCache

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import Answer, generate_greedily, read_answers, spans
from storm_hf.inputs.prompts import PromptEncoder, Row, pad_rows
from storm_hf.inputs.wording import format_answer
from storm_hf.interventions.intervention import Intervention
from storm_hf.interventions.kind import InterventionKind
from storm_hf.model.generation_storm import set_num_latents
from storm_hf.model.latent_block_storm import PER_TOKEN_INPUTS, find_latent_block
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.rollout_storm import LatentIntervention


_PER_TOKEN = ("input_ids", "attention_mask", "clip_token_mask", *PER_TOKEN_INPUTS)
_ANEW = (InterventionKind.no_latents, InterventionKind.latents_only)  # their prompts are not the shared one
_PIXELS = ("pixel_", "video_features", "video_deepstack", "mm_encoder_outputs")  # what the shared part has seen


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer under an intervention.

    Args:
        answer ([`~storm_hf.evaluation.Answer`]):
            Answer of the model.
        divergence (`float`):
            KL divergence in nats from what it would have said by itself, 0 or more: over the options, where their first tokens
            differ, otherwise the mean over the tokens of its own answer.
    """

    answer: Answer
    divergence: float


@torch.inference_mode()
def answer_again(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[Row],
    interventions: Mapping[str, Intervention],
    *,
    max_new_tokens: int = 8,
    batch_size: int = 128,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, list[Reply]]:
    """Answer the questions of `rows` greedily under each intervention.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model; it is put into evaluation mode.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encodes the questions, with as many latents as are fed.
        rows (`Sequence`):
            Rows of a storm-thoughts data set.
        interventions (`Mapping[str, Intervention]`):
            By name, over the same rows.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Longest answer.
        batch_size (`int`, *optional*, defaults to `128`):
            Questions that are answered together.
        on_batch (`Callable[[int], None]`, *optional*):
            Called with the number of questions after each batch.

    Returns:
        `dict[str, list[Reply]]`: For each intervention one reply per row.
    """
    replies: dict[str, list[Reply]] = {name: [] for name in interventions}
    for span, shared in _shared_prompts(model, prompts, rows, max_new_tokens, batch_size):
        for name, intervention in interventions.items():
            replies[name] += shared.reply(intervention.kind, intervention.feed(span))
        if on_batch is not None:
            on_batch(len(span))
    return replies


@torch.inference_mode()
def answers_under(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[Row],
    interventions: Mapping[str, Intervention],
    *,
    max_new_tokens: int = 8,
    batch_size: int = 128,
) -> dict[str, list[Answer]]:
    """Answer as [`answer_again`] does, with the same arguments, and compare nothing with what the model says by itself."""
    answers: dict[str, list[Answer]] = {name: [] for name in interventions}
    for span, shared in _shared_prompts(model, prompts, rows, max_new_tokens, batch_size):
        for name, intervention in interventions.items():
            answers[name] += shared.answer(intervention.kind, intervention.feed(span))
    return answers


def _shared_prompts(
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    rows: Sequence[Row],
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[tuple[range, "SharedPrompts"]]:
    """Read the prompts of each batch, one batch after the other."""
    model.eval()
    for span in spans(len(rows), batch_size):
        yield span, SharedPrompts(model, prompts, [rows[index] for index in span], max_new_tokens)


class SharedPrompts:
    """The prompts of a batch, computed up to the start token, and what the model says to them by itself.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
            Encodes the questions.
        rows (`Sequence`):
            The questions.
        max_new_tokens (`int`):
            Longest answer.

    Raises:
        ConfigurationError: If the prompts have no latents.
    """

    def __init__(
        self, model: StormForConditionalGeneration, prompts: PromptEncoder, rows: Sequence[Row], max_new_tokens: int
    ) -> None:
        self.model, self.prompts, self.rows, self.max_new_tokens = model, prompts, list(rows), max_new_tokens
        self.inputs = {name: value.to(model.device) for name, value in prompts(self.rows).items()}
        block = find_latent_block(self.inputs["input_ids"], model.config)
        if block is None:
            raise ConfigurationError(
                "There are no latents to replace in prompts of num_latents=0. Encode them with more."
            )
        self.start, self.num_latents = block.start, block.num_latents
        self.positions = self._positions(self.inputs)
        self.cache = self._run_prefix()
        self.option_ids = [_first_tokens(row, prompts) for row in self.rows]

    def answer(self, kind: InterventionKind, replace: LatentIntervention | None) -> list[Answer]:
        """Answer under an intervention."""
        return self._read(self._generate(kind, replace), kind)

    def reply(self, kind: InterventionKind, replace: LatentIntervention | None) -> list[Reply]:
        """Answer under an intervention, and compare with what the model says by itself."""
        output = self._generate(kind, replace)
        answers = self._read(output, kind)
        distributions = self._distributions(output.logits[0], kind, replace)
        return [
            Reply(answer, _divergence(own, other))
            for answer, own, other in zip(answers, self.own_distributions, distributions, strict=True)
        ]

    @property
    def own(self) -> list[Answer]:
        """Answers with the model's own latents."""
        return self._by_itself[0]

    @cached_property
    def own_distributions(self) -> list[torch.Tensor]:
        """Log probabilities of the model by itself for each row: over options (1, M), or the tokens of its answer (L, V)."""
        return self._distributions(self._by_itself[1], InterventionKind.own, None)

    @cached_property
    def _by_itself(self) -> tuple[list[Answer], torch.Tensor]:
        """Answers without an intervention, and the logits of their first tokens (B, V)."""
        output = self._generate(InterventionKind.own, None)
        return self._read(output, InterventionKind.own), output.logits[0]

    def run_block(self, **arguments: object) -> Any:
        """Think, and return what the model itself does, for what `generate` does not return, such as attention."""
        return self._go_on(InterventionKind.own, self._inputs(InterventionKind.own), None, **arguments)

    def _positions(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        known = {name: value for name, value in inputs.items() if name != "input_ids"}
        return self.model._prepare_position_ids_for_generation(inputs["input_ids"], known)

    def _run_prefix(self) -> DynamicCache:
        inputs = {name: value[:, : self.start] if name in _PER_TOKEN else value for name, value in self.inputs.items()}
        cache = DynamicCache(config=self.model.config.get_text_config(decoder=True))
        positions = self.positions[..., : self.start]
        self.model(**inputs, position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _inputs(self, kind: InterventionKind) -> dict[str, torch.Tensor]:
        """Model inputs under an intervention, without the pixels that the cache has seen."""
        is_whole = not self._num_shared(kind)
        seen = {name: value for name, value in self.inputs.items() if is_whole or not name.startswith(_PIXELS)}
        if kind == InterventionKind.markers_only:
            columns = [*range(self.start), *range(self.start + self.num_latents, self.inputs["input_ids"].shape[1])]
            seen = {name: value[:, columns] if name in _PER_TOKEN else value for name, value in seen.items()}
        length = seen["input_ids"].shape[1]
        return {**seen, "position_ids": self.positions[..., :length]}  # after the prompt, positions count by one

    def _num_shared(self, kind: InterventionKind) -> int:
        """Number of columns of a prompt in the cache."""
        is_read_whole = kind != InterventionKind.markers_only and self.model.config.latent_attention == "step"
        return 0 if is_read_whole else self.start

    def _generate(self, kind: InterventionKind, replace: LatentIntervention | None) -> Any:
        if kind in _ANEW:
            inputs: dict[str, Any] = {**self.inputs, **Intervention(kind).generation_arguments()}
        else:
            inputs = dict(self._inputs(kind))
            inputs |= {"cache": copy.deepcopy(self.cache)} if self._num_shared(kind) else {}
        return generate_greedily(
            self.model,
            self.prompts,
            inputs,
            self.max_new_tokens,
            output_logits=True,
            latent_intervention=replace,
            halting=False,  # step by step, thoughts are compared
        )

    def _read(self, output: object, kind: InterventionKind) -> list[Answer]:
        return read_answers(output, self._inputs(kind)["input_ids"].shape[1], self.prompts, self.rows)

    def _distributions(
        self, first_logits: torch.Tensor, kind: InterventionKind, replace: LatentIntervention | None
    ) -> list[torch.Tensor]:
        """Log probabilities of the model for each row: over options (1, M), or tokens (L, V)."""
        spelled = self._spell_own(kind, replace) if not all(self.option_ids) else None
        return [
            log_softmax(first_logits[row, ids].float(), dim=-1)[None] if ids else _row(spelled, row, self.own)
            for row, ids in enumerate(self.option_ids)
        ]

    def _spell_own(self, kind: InterventionKind, replace: LatentIntervention | None) -> torch.Tensor:
        """Log probabilities (B, L, V) of each token of the model's own answer, given those before it."""
        said = [torch.tensor(answer.token_ids[:-1], dtype=torch.long) for answer in self.own]
        tail = pad_rows(said, 0, side="right").to(self.model.device)  # (B, L - 1)
        if kind == InterventionKind.no_latents:
            inputs = _extend(set_num_latents(self.inputs, 0, self.model.config), tail)
            output = self.model(**inputs, position_ids=self._positions(inputs), logits_to_keep=tail.shape[1] + 1)
        elif kind == InterventionKind.latents_only:
            inputs = _extend(self.inputs, tail)
            given = {"latent_intervention": replace, "latent_bottleneck": True}
            output = self.model(**inputs, **given, logits_to_keep=tail.shape[1] + 1)
        else:
            inputs = _extend(self._inputs(kind), tail)
            output = self._go_on(kind, inputs, replace, logits_to_keep=tail.shape[1] + 1)
        return log_softmax(output.logits.float(), dim=-1)

    def _go_on(
        self,
        kind: InterventionKind,
        inputs: dict[str, torch.Tensor],
        replace: LatentIntervention | None,
        **arguments: object,
    ) -> Any:
        """Run what comes after the shared part, in one pass."""
        given = {"use_cache": True, "latent_intervention": replace, **arguments}
        num_shared = self._num_shared(kind)
        if not num_shared:
            return self.model(**inputs, **given)
        piece = {name: inputs[name][..., num_shared:] for name in (*_PER_TOKEN, "position_ids") if name in inputs}
        piece["attention_mask"] = inputs["attention_mask"]  # of the past too
        return self.model(**piece, cache=copy.deepcopy(self.cache), **given)


def _extend(inputs: dict[str, torch.Tensor], tail: torch.Tensor) -> dict[str, torch.Tensor]:
    """Append text to each row."""
    filling = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
    longer = {
        name: torch.cat([value, filling.get(name, torch.zeros_like(tail)).to(value.dtype)], dim=1)
        if name in _PER_TOKEN
        else value
        for name, value in inputs.items()
    }
    if (positions := inputs.get("position_ids")) is not None:
        after = positions[..., -1:] + torch.arange(1, tail.shape[1] + 1, device=tail.device)
        longer["position_ids"] = torch.cat([positions, after], dim=-1)
    return longer


def _row(spelled: torch.Tensor | None, row: int, own: Sequence[Answer]) -> torch.Tensor:
    assert spelled is not None
    return spelled[row, : len(own[row].token_ids)]


def _first_tokens(row: Row, prompts: PromptEncoder) -> list[int]:
    """The first token of each option, if no two share it; otherwise nothing."""
    options = row.get("options")
    if options is None or len(options) < 2:
        return []
    said = [format_answer(option, list(options), prompts.style) for option in options]
    ids = [prompts.processor.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in said]
    return ids if len(set(ids)) == len(ids) else []


def _divergence(own: torch.Tensor, other: torch.Tensor) -> float:
    """Mean KL divergence between rows of log probabilities, in nats."""
    return float(kl_div(other, own, log_target=True, reduction="none").sum(dim=-1).mean().clamp(min=0))
