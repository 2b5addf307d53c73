"""A rollout that stops by itself within its bound: the head that says when, and generation that listens to it.

lambda_k = sigmoid(w h_k + b) is the probability that the thought ends after latent k, if it has not ended before, where h_k is the
hidden state after that latent: p_k = lambda_k prod_{j<k} (1 - lambda_j), and the last step takes what is left (PonderNet,
arXiv 2107.05407, with a bound). In training `StepAnswers` reads the answer after every step; in generation a row stops as soon as the
cumulated p exceeds a half.

Rows of a batch stop at different steps. A row that has stopped stays where it is while others think on: its cache and its mask move
one column to the right with each of their steps, so that in the end it is a row of a left-padded batch whose prompt has fewer latents.

Axes: B batch, S sequence, K latent steps, A columns after the block, D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from .bottleneck_storm import CLIP_INPUTS
from .cache_storm import SegmentRunner, open_cache, rollout_state
from .configuration_storm import StormConfig
from .errors_storm import ConfigurationError, LatentError
from .latent_block_storm import PER_TOKEN_INPUTS, LatentBlock, find_latent_block
from .latent_forward_storm import LatentForward, StormModelOutput, Tokens
from .rollout_storm import LatentIntervention, RolloutGradient


_ENCODED = (
    "pixel_",
    "mm_encoder_outputs",
    "input_features",
    "input_values",
)  # of the clip, not needed once it is cached
_MOVED = (DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, LinearAttentionAndFullAttentionLayer)
_FIRST_LOGIT = -2.0  # a probability of .12: a new head thinks for long


class HaltingHead(nn.Module):
    """Reads from the hidden state after a latent whether the thought ends there. In float32, whatever the model is held in.

    It is no `nn.Linear`: what adapts or quantizes all linear layers would take it for one, and its output has another shape.
    """

    def __init__(self, config: StormConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, config.hidden_size))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the same small probability after every latent."""
        init.zeros_(self.weight)
        init.constant_(self.bias, _FIRST_LOGIT)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map hidden states of shape `(..., hidden_size)` to logits of lambda, of shape `(...)`."""
        return F.linear(hidden_states.float(), self.weight.float(), self.bias.float())[..., 0]


def halting_log_probabilities(halting_logits: torch.Tensor) -> torch.Tensor:
    """Turn logits of lambda into log p_k, the log probability that the thought has exactly k latents.

    Args:
        halting_logits (`torch.Tensor` of shape `(batch_size, num_latents)`):
            After each latent. The last one is not read: the thought ends there.

    Returns:
        `torch.Tensor` of the same shape: Each row adds up to one in probability.
    """
    goes_on = F.logsigmoid(-halting_logits[:, :-1]).cumsum(dim=1)  # (B, K - 1)
    has_reached = F.pad(goes_on, (1, 0))  # (B, K)
    return has_reached + F.pad(F.logsigmoid(halting_logits[:, :-1]), (0, 1))


# --- Training ----------------------------------------------------------------------------------------------------------


class StepAnswers:
    """Reads what follows the block after every latent step, as a prompt with so many latents has it.

    A branch of the cache is opened after each step but the last, whose answer is that of the sequence itself: K - 1 short passes over
    the answer beside the K steps, exact on every backbone whose cache can be replayed (see [`ReplayCache`]).

    Args:
        block ([`LatentBlock`]):
            Position of the latents, the same columns in all rows.

    Raises:
        LatentError: If rows have their blocks in different columns.
        ConfigurationError: If the backbone has a layer, such as one with a sliding window, whose cache cannot be replayed.
    """

    def __init__(self, block: LatentBlock) -> None:
        if not block.is_aligned:
            raise LatentError(
                "`answer_every_step` needs the latent blocks of all rows in the same columns, got first placeholders in columns "
                f"{list(block.first)}. Pad the prompts on the left."
            )
        self.block = block
        self.states: list[torch.Tensor] = []
        self.answers: list[torch.Tensor] = []

    def __call__(self, runner: SegmentRunner, tokens: Tokens, column: int, state: torch.Tensor) -> None:
        """Keep the `state` (B, D) after the latent before `column`, and answer from there."""
        self.states.append(state)
        stop, end = self.block.stop, runner.position_ids.shape[-1]
        if column == stop:
            return
        branch, mask, positions = self._branch(runner), runner.attention_mask, runner.position_ids
        if isinstance(mask, torch.Tensor):
            branch.attention_mask = torch.cat([mask[:, :column], mask[:, stop:]], dim=1)
        branch.position_ids = torch.cat([positions[..., :column], positions[..., stop:] - (stop - column)], dim=-1)
        self.answers.append(branch(column, column + end - stop, **tokens(stop, end)))

    @staticmethod
    def _branch(runner: SegmentRunner) -> SegmentRunner:
        try:
            return runner.branch()
        except ConfigurationError as error:
            raise ConfigurationError(
                "`answer_every_step`, the loss of `halting`, needs a backbone with full or linear attention alone, whose cache can be "
                "replayed. Train without `halting`; with `min_num_latents` any number of latents can be asked for."
            ) from error

    def add_to(self, output: StormModelOutput) -> StormModelOutput:
        """Add the states after each latent, (B, K, D), and the hidden states of what follows, (B, K, A, D), to the output."""
        assert output.last_hidden_state is not None
        own = output.last_hidden_state[:, self.block.stop :]
        output.step_states = torch.stack(self.states, dim=1)
        output.step_answers = torch.stack([*self.answers, own], dim=1)
        return output


def refuse_beside_answers(
    forced_latents: torch.Tensor | None,
    latent_bottleneck: torch.Tensor | bool | None,
    cache: Cache | None,
    gradient: RolloutGradient | None,
) -> None:
    """Refuse what leaves no rollout to answer after each step of.

    Raises:
        ConfigurationError: If one of these is given; of `gradient`, if it takes all steps at once.
    """
    given = {
        "forced_latents": forced_latents is not None,
        "latent_bottleneck": latent_bottleneck is not None and latent_bottleneck is not False,
        "cache": cache is not None,
        "jacobi_sweeps": gradient is not None and gradient.jacobi_sweeps is not None,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise ConfigurationError(
            f"`answer_every_step` answers after each step of a whole rollout, which there is not with `{wrong[0]}`. Leave one of the "
            "two out."
        )


# --- Generation --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HaltedThought:
    """Prompts that have thought, each for as long as it needed.

    Args:
        inputs (`dict`):
            Inputs of generation, whose prompts have as many placeholders as latents were used, padded on the left, and whose `cache`
            holds everything up to the last latent.
        num_latents (`torch.LongTensor` of shape `(batch_size,)`):
            Number of latents of each row.
    """

    inputs: dict[str, Any]
    num_latents: torch.Tensor


@torch.no_grad()
def think_until_halted(
    model: PreTrainedModel, inputs: dict[str, Any], intervene: LatentIntervention | None = None
) -> HaltedThought:
    """Read left-padded prompts and think, until the halting head has stopped every row or the block is full.

    Args:
        model ([`StormForConditionalGeneration`]):
            With a halting head.
        inputs (`dict`):
            Inputs of generation: `input_ids` with a latent block, whose length is the bound, `attention_mask`, and all else.
        intervene (`Callable[[int, torch.Tensor], torch.Tensor]`, *optional*):
            Replaces the latents of a step, also those of rows that have stopped, where it changes nothing.

    Raises:
        LatentError: If the blocks of the rows lie in different columns.
        ConfigurationError: If rows stop apart on a backbone whose cache cannot hold one back.
    """
    block = find_latent_block(inputs["input_ids"], model.config)
    assert block is not None, "generation has looked for it"
    if not block.is_aligned:
        raise LatentError(
            f"`halting` needs prompts that are padded on the left, got first placeholders in columns {list(block.first)}."
        )
    thinking = _Thinking(model, inputs, block)
    thinking.read_prompt()
    while thinking.num_steps < block.num_latents and not bool(thinking.is_stopped.all()):
        thinking.step(intervene)
    return HaltedThought(thinking.rest(), thinking.num_latents)


class _Thinking:
    """Rows that think step by step, of which some have stopped."""

    def __init__(self, model: PreTrainedModel, inputs: dict[str, Any], block: LatentBlock) -> None:
        self.model, self.inputs, self.block = model, inputs, block
        self.input_ids, self.mask = inputs["input_ids"], inputs["attention_mask"]
        self.clip = {
            name: value
            for name, value in inputs.items()
            if name.startswith(CLIP_INPUTS) and name != "clip_token_mask" and value is not None
        }
        known = {"attention_mask": self.mask, **self.clip, **self._per_token(0, self.input_ids.shape[1])}
        given = inputs.get("position_ids")
        self.positions = model._prepare_position_ids_for_generation(self.input_ids, known) if given is None else given
        self.cache = open_cache(model.config.get_text_config(decoder=True), has_gradient=False, is_checkpointing=False)
        self.seen = self.mask[:, : block.start]  # the mask of what is cached, (B, columns)
        self.num_steps = 0
        self.num_latents = torch.full((len(self.input_ids),), block.num_latents, device=self.input_ids.device)
        self.is_stopped = torch.zeros_like(self.num_latents, dtype=torch.bool)
        self.log_going_on = torch.zeros_like(self.num_latents, dtype=torch.float32)

    def read_prompt(self) -> None:
        """Run everything up to `<|latent_start|>`."""
        start = self.block.start
        self.model.model(
            self.input_ids[:, :start],
            self.seen,
            self.positions[..., :start],
            self.cache,
            use_cache=True,
            **self._per_token(0, start),
            **self.clip,
        )

    def step(self, intervene: LatentIntervention | None) -> None:
        """One latent for every row, which those that have stopped forget again; then ask the head."""
        column = self.block.start + self.num_steps
        held = _HeldRows(self.cache, self.is_stopped) if bool(self.is_stopped.any()) else None
        one = LatentBlock(first=(0,) * len(self.input_ids), num_latents=1)
        LatentForward(self.model.model, one, self.cache, None, intervene)(
            self.input_ids[:, column : column + 1],
            F.pad(self.seen, (0, 1), value=1),
            self.positions[..., column : column + 1],
            True,
            self._per_token(column, column + 1),
        )
        longer, moved = F.pad(self.seen, (0, 1), value=1), F.pad(self.seen, (1, 0))
        self.seen = torch.where(self.is_stopped[:, None], moved, longer)
        if held is not None:
            held.put_back(self.cache)
        self.num_steps += 1
        self._ask_head()

    def _ask_head(self) -> None:
        state = rollout_state(self.cache).last_hidden_state
        self.log_going_on = self.log_going_on + F.logsigmoid(-self.model.model.halting_head(state))
        stops = ~self.is_stopped & (-self.log_going_on.expm1() > self.model.config.halting_threshold)
        self.num_latents = self.num_latents.masked_fill(stops, self.num_steps)
        self.is_stopped = self.is_stopped | stops

    def rest(self) -> dict[str, Any]:
        """Inputs of generation for what follows the thoughts."""
        columns = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        is_unused = (columns >= self.block.start + self.num_latents[:, None]) & (columns < self.block.stop)  # (B, S)
        order = is_unused.int().argsort(dim=1, descending=True, stable=True)  # what is left out becomes padding
        kept = order[:, int(is_unused.sum(dim=1).min()) :]
        is_padding = is_unused.gather(1, kept)

        def take(values: torch.Tensor, padding: int = 0) -> torch.Tensor:
            return values.gather(-1, kept.expand(*values.shape[:-2], -1, -1)).masked_fill(is_padding, padding)

        padding = getattr(self.model.config.get_text_config(), "pad_token_id", None) or 0
        named = ("clip_token_mask", *PER_TOKEN_INPUTS)
        per_token = {name: take(self.inputs[name]) for name in named if self.inputs.get(name) is not None}
        if self.inputs.get("position_ids") is not None:  # those after the block count as many latents as there are
            per_token["position_ids"] = take(
                self.positions - is_unused.sum(dim=1)[:, None] * (columns >= self.block.stop)
            )
        return {
            **{name: value for name, value in self.inputs.items() if not name.startswith(_ENCODED)},
            **per_token,
            "input_ids": take(self.input_ids, padding),
            "attention_mask": take(self.mask),
            "cache": self.cache,
        }

    def _per_token(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        return {
            name: self.inputs[name][..., start:stop] for name in PER_TOKEN_INPUTS if self.inputs.get(name) is not None
        }


class _HeldRows:
    """Entries of the cache for rows that have stopped, to be put back after a step of the others.

    Args:
        cache ([`~transformers.Cache`]):
            Before the step.
        is_stopped (`torch.BoolTensor` of shape `(batch_size,)`):
            The rows.

    Raises:
        ConfigurationError: If a layer is of a kind that rows cannot be moved in.
    """

    def __init__(self, cache: Cache, is_stopped: torch.Tensor) -> None:
        self.is_stopped = is_stopped
        self.keys_and_values: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.states: dict[int, list[torch.Tensor]] = {}
        for index, layer in enumerate(cache.layers):
            if type(layer) not in _MOVED:
                raise ConfigurationError(
                    f"`halting` in a batch needs full, sliding or linear attention, but the backbone has a {type(layer).__name__}. "
                    "Ask one question at a time, or pass `halting=False`."
                )
            if isinstance(layer, LinearAttentionLayer):  # written in place
                self.states[index] = [state.clone() for state in _recurrent_states(layer)]
            if isinstance(layer, DynamicLayer) and layer.is_initialized:
                self.keys_and_values[index] = (layer.keys, layer.values)

    def put_back(self, cache: Cache) -> None:
        """Move the rows to the right end of the cache, as they were before the step."""
        for index, states in self.states.items():
            for before, after in zip(states, _recurrent_states(cache.layers[index]), strict=True):
                after.copy_(self._choose(before, after))
        for index, (keys, values) in self.keys_and_values.items():
            layer = cache.layers[index]
            layer.keys, layer.values = self._move(keys, layer.keys), self._move(values, layer.values)

    def _move(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        num_new = after.shape[-2] - before.shape[-2]  # none, where a sliding window is full
        return self._choose(F.pad(before, (0, 0, num_new, 0)), after)

    def _choose(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return torch.where(self.is_stopped.view(-1, *[1] * (after.ndim - 1)), before, after)


def _recurrent_states(layer: LinearAttentionLayer) -> list[torch.Tensor]:
    found = [*layer.conv_states.values(), *layer.recurrent_states.values()]
    return [state for state in found if state is not None]
