"""One forward pass with a latent block: the prompt, the rollout or given latents, and what follows the block.

It opens the cache, aligns the rows, gives the loop its two functions, from a hidden state to a latent and from a latent to the next
state, and puts the pieces back together. It ships with the checkpoint.

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput

from .cache_storm import (
    ReplayCache,
    SegmentRunner,
    checkpointed_layers,
    checkpointing_with_cache,
    open_cache,
    rollout_state,
)
from .errors_storm import ConfigurationError, LatentError
from .latent_block_storm import PER_TOKEN_INPUTS, LatentBlock, RowAlignment, feeding_latents
from .rollout_storm import LatentIntervention, RolloutGradient, bounded_rollout, jacobi_sweeps
from .step_mask_storm import as_mask, check_unchunked, mask_of_single_tokens, step_attention
from .thought_adapter_storm import thought_layers, without_checkpointing


_PER_SEGMENT_INPUTS = ("output_hidden_states", "output_attentions", "output_router_logits")

Tokens = Callable[[int, int], dict[str, torch.Tensor]]  # the backbone's inputs for a range of columns
# Called after each step with the column that follows its latent, and the state (B, D) there.
AfterStep = Callable[[SegmentRunner, Tokens, int, torch.Tensor], None]


@dataclass
class StormModelOutput(ModelOutput):
    """Output of the body: a backbone's output and the model's own latents (B, K, D), in target space."""

    last_hidden_state: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    router_logits: tuple[torch.Tensor, ...] | None = None
    latents: torch.Tensor | None = None
    step_states: torch.Tensor | None = None  # after each latent (B, K, D)
    step_answers: torch.Tensor | None = None  # of what follows the block, after each number of latents (B, K, A, D)


class LatentForward:
    """One forward pass with a latent block: align the rows, think, put the pieces back.

    Once it was called, `fed_latents` (B, K, D) is what the slots were fed, in target space.
    """

    fed_latents: torch.Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        block: LatentBlock,
        cache: Cache | None,
        forced_latents: torch.Tensor | None,
        intervene: LatentIntervention | None,
        gradient: RolloutGradient | None = None,
        after_step: AfterStep | None = None,
    ) -> None:
        self.model, self.config = model, model.config
        self.block, self.cache = block, cache
        self.forced_latents, self.intervene = forced_latents, intervene
        self.gradient = gradient or RolloutGradient()
        self.after_step = after_step
        has_adapter = model.config.thought_adapter is not None
        self.thought_layers = thought_layers(model.get_decoder()) if has_adapter else []
        self._check(forced_latents)
        self._check_gradient()

    def _check(self, forced_latents: torch.Tensor | None) -> None:
        expected = (len(self.block.first), self.block.num_latents, self.config.hidden_size)
        if forced_latents is not None and tuple(forced_latents.shape) != expected:
            shape = tuple(forced_latents.shape)
            cure = "Give K vectors for each row."
            if len(shape) == 3 and (shape[0], shape[2]) == (expected[0], expected[2]):
                cure = f"Render the prompt with num_latents={shape[1]}, or pool the targets to {expected[1]} steps."
            raise LatentError(
                f"The prompt has room for latents of shape {expected}, but `forced_latents` has {shape}. {cure}"
            )
        if forced_latents is not None and self.intervene is not None:
            raise ConfigurationError(
                "`forced_latents` are fed as they are, and `latent_intervention` replaces the latents of a rollout. Leave one of the "
                "two out."
            )
        if self.cache is not None and not self.block.is_aligned:
            raise LatentError(
                "With a cache, the latent blocks of all rows must lie in the same columns, got first placeholders in "
                f"columns {list(self.block.first)}. Pad the prompts on the left."
            )
        if torch.is_grad_enabled() and self.cache is not None and self.cache.is_compileable:
            raise ConfigurationError(
                f"Gradients cannot pass through a {type(self.cache).__name__}, which is written in place. Leave "
                "`cache` out, or wrap the call in `torch.no_grad()`."
            )

    def _check_gradient(self) -> None:
        if self.gradient != RolloutGradient() and (self.forced_latents is not None or self.cache is not None):
            raise ConfigurationError(
                f"{self.gradient} cuts the gradient of a whole rollout, which there is neither with `forced_latents` nor with "
                "`cache`. Leave one of the two out."
            )
        if self.gradient.jacobi_sweeps is not None and self.intervene is not None:
            raise ConfigurationError(
                "A `latent_intervention` replaces the latents of steps that come one after the other; `jacobi_sweeps` takes "
                "them all at once. Leave one of the two out."
            )

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        use_cache: bool | None,
        inputs: dict[str, Any],
    ) -> StormModelOutput:
        """Think: by rollout, or with given latents. Arguments as in `StormModel.forward`."""
        if self.block.is_aligned:
            return self._think(input_ids, attention_mask, position_ids, use_cache, inputs)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = RowAlignment(self.block, mask)
        padding = getattr(self.config.get_text_config(), "pad_token_id", None) or 0
        inputs = {name: rows.move(value) if name in PER_TOKEN_INPUTS else value for name, value in inputs.items()}
        output = self._think(
            rows.move(input_ids, padding), rows.move(mask), rows.move(position_ids), use_cache=False, inputs=inputs
        )
        rows.move_output_back(output)
        return output

    def _think(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        use_cache: bool | None,
        inputs: dict[str, Any],
    ) -> StormModelOutput:
        is_seen_later = None
        if self.config.latent_attention == "step":
            check_unchunked(self.block, input_ids, self.cache)
            sees, is_seen_later = step_attention(input_ids, attention_mask, self.block, self.config)
            attention_mask = as_mask(sees, self.model.get_decoder())
        with without_checkpointing(self.model.get_decoder()) if self.thought_layers else nullcontext():
            if self.forced_latents is None:
                runner, latents = self._roll_out(input_ids, attention_mask, position_ids, inputs)
            else:
                keeps_cache = use_cache is not False and not torch.is_grad_enabled()
                runner, latents = self._force(
                    self.forced_latents, input_ids, attention_mask, position_ids, inputs, keeps_cache
                )
        if not torch.is_grad_enabled():
            is_cut = self.block.stop == input_ids.shape[1]  # the block may go on in the next piece of the prompt
            num_thought = self._num_thought() + self.block.num_latents if is_cut else 0
            if runner.cache is not None:
                rollout_state(runner.cache).keep(runner.pieces[-1].last_hidden_state, num_thought)
        if runner.cache is not None:
            state = rollout_state(runner.cache)
            state.is_seen_later, state.adapter_acts = is_seen_later, bool(self.thought_layers)
        is_kept = use_cache is not False and not isinstance(runner.cache, ReplayCache)
        return _output_of(runner, runner.cache if is_kept else None, latents)

    def _open_cache(self, is_checkpointing: bool) -> Cache:
        text_config = self.config.get_text_config(decoder=True)
        return open_cache(text_config, torch.is_grad_enabled(), is_checkpointing)

    def _open(
        self,
        cache: Cache | None,
        input_ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        inputs: dict[str, Any],
    ) -> tuple[SegmentRunner, Tokens]:
        """The backbone as a function of columns, and its inputs of some; leaves those of the whole prompt in `inputs`."""
        per_token = {name: inputs.pop(name) for name in PER_TOKEN_INPUTS if name in inputs}
        options = {name: inputs.pop(name) for name in _PER_SEGMENT_INPUTS if name in inputs}
        body = self.model.backbone.base_model
        runner = SegmentRunner(body, cache, mask, positions, options, self.thought_layers, self.block.start - 1)

        def tokens(first: int, last: int) -> dict[str, torch.Tensor]:
            sliced = {name: value[..., first:last] for name, value in per_token.items()}
            return {"input_ids": input_ids[:, first:last], **sliced}

        return runner, tokens

    def _force(
        self,
        forced_latents: torch.Tensor,
        input_ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        inputs: dict[str, Any],
        keeps_cache: bool,
    ) -> tuple[SegmentRunner, torch.Tensor]:
        """Teacher forcing: every slot is fed what is given, in one pass, and each latent is read off the slot before.

        With a thought adapter, which the prompt before its block is read without, in two.
        """
        self.fed_latents = forced_latents
        is_cached = keeps_cache or bool(self.thought_layers)
        cache = self._open_cache(is_checkpointing=False) if self.cache is None and is_cached else self.cache
        runner, tokens = self._open(cache, input_ids, mask, positions, inputs)
        num_columns, first = input_ids.shape[1], 0
        if self.thought_layers and self.block.start > 1:
            first = self.block.start - 1
            runner(0, first, **tokens(0, first), **inputs)
            inputs = {}
        self._run_fed(runner, first, num_columns, forced_latents, {**tokens(first, num_columns), **inputs})
        hidden_states = runner.last_hidden_state
        before = torch.arange(self.block.start - 1, self.block.stop - 1, device=hidden_states.device)
        return runner, self.model.latent_projector(hidden_states[:, before])

    def _roll_out(
        self, input_ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, inputs: dict[str, Any]
    ) -> tuple[SegmentRunner, torch.Tensor]:
        """The bounded rollout: the prompt, then K steps, the last of which takes the rest of the sequence along."""
        layers = checkpointed_layers(self.model)
        cache = self._open_cache(is_checkpointing=bool(layers)) if self.cache is None else self.cache
        runner, tokens = self._open(cache, input_ids, mask, positions, inputs)
        has_padding = self.block.has_padding or not self.block.is_aligned  # moved rows are padded
        if not cache.is_compileable:  # a static one has columns that nothing was written to
            runner.mask_of_single_tokens = mask_of_single_tokens(mask, has_padding, self.model.get_decoder())
        with checkpointing_with_cache(layers):
            reaches_prompt = self.gradient.reaches_prompt(self.block.num_latents)
            with torch.set_grad_enabled(torch.is_grad_enabled() and reaches_prompt):
                state = self._read_prompt(runner, tokens, inputs)
            if runner.mask_of_single_tokens is None:
                runner.attention_mask = None  # nor is there anything to hide from what follows the block
            if self.gradient.jacobi_sweeps is None:
                latents = self._step_by_step(runner, state, tokens)
            else:
                latents = self._in_parallel(runner, state, self.gradient.jacobi_sweeps, tokens)
        return runner, latents

    def _read_prompt(self, runner: SegmentRunner, tokens: Tokens, inputs: dict[str, Any]) -> torch.Tensor:
        """Run the prompt; with a thought adapter `<|latent_start|>`, where it begins to act, by itself."""
        start = self.block.start
        if start == 0:
            return self._kept_state()
        if not self.thought_layers or start == 1:
            return runner(0, start, **tokens(0, start), **inputs)[:, -1]
        runner(0, start - 1, **tokens(0, start - 1), **inputs)
        return runner(start - 1, start, **tokens(start - 1, start))[:, -1]

    def _step_by_step(self, runner: SegmentRunner, state: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """K steps of one token each; no latent waits for the last one, so that what follows the block runs with it."""
        num_latents, num_columns = self.block.num_latents, runner.position_ids.shape[-1]
        fed: list[torch.Tensor] = []

        def advance(latent: torch.Tensor) -> torch.Tensor:
            column = self.block.start + len(fed)
            fed.append(latent)
            stop = num_columns if len(fed) == num_latents else column + 1
            state = self._run_fed(runner, column, stop, latent[:, None], tokens(column, stop))[:, 0]
            if self.after_step is not None:
                self.after_step(runner, tokens, column + 1, state)
            return state

        latents = bounded_rollout(
            self.model.latent_projector,
            advance,
            state,
            num_latents,
            self.intervene,
            first_step=self._num_thought(),
            num_detached_steps=self.gradient.num_detached_steps(num_latents),
        )
        self.fed_latents = torch.stack(fed, dim=1)
        return latents

    def _in_parallel(
        self, runner: SegmentRunner, state: torch.Tensor, num_sweeps: int, tokens: Tokens
    ) -> torch.Tensor:
        """Sweeps over all slots at once, each on the cache of the prompt, then one pass over the slots and the rest."""
        start, num_latents = self.block.start, self.block.num_latents
        project = self.model.latent_projector

        def run(runner: SegmentRunner, latents: torch.Tensor, stop: int) -> torch.Tensor:
            return self._run_fed(runner, start, stop, latents, tokens(start, stop))

        def sweep(latents: torch.Tensor) -> torch.Tensor:
            return run(runner.branch(), latents, self.block.stop)

        self.fed_latents = latents = jacobi_sweeps(project, sweep, state, num_latents, num_sweeps)
        states = run(runner, latents, runner.position_ids.shape[-1])
        return project(torch.cat([state[:, None], states[:, : num_latents - 1]], dim=1))

    @torch.compiler.disable  # a compiled graph does not see hooks come and go
    def _run_fed(
        self, runner: SegmentRunner, start: int, stop: int, latents: torch.Tensor, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """Run columns `start` to `stop` with `latents` (B, K, D), scaled from target space to input embeddings, in their slots.

        A range that begins within the block begins with the first of the latents.
        """
        shape = (inputs["input_ids"].shape[0], stop - start)
        embeds = latents * self.config.latent_scale
        if (compiled := self._compiled_step(runner, start, stop)) is not None:
            following = self.model.get_input_embeddings()(inputs.pop("input_ids")[:, 1:])
            embeds = torch.cat([embeds.to(following), following], dim=1)
            return runner.run_compiled(compiled, start, stop, inputs_embeds=embeds, **inputs)
        with feeding_latents(self.model.get_input_embeddings(), shape, max(self.block.start - start, 0), embeds):
            return runner(start, stop, **inputs)

    def _compiled_step(self, runner: SegmentRunner, start: int, stop: int) -> Callable[..., ModelOutput] | None:
        """Choose the compiled body for a latent, or for the last one and `<|latent_end|>`, where decoding steps are compiled.

        It is fed embeddings, since a graph does not see hooks come and go. Some decoders look up more than those for each token
        id, and take their steps as the prompt is read.
        """
        step = None if self.cache is None else rollout_state(self.cache).compiled_step
        has_form = start >= self.block.start and stop - start <= 2 and not any(runner.options.values())
        reads_ids = bool(getattr(self.config.get_text_config(), "hidden_size_per_layer_input", 0))
        return step if has_form and not reads_ids and not self.thought_layers else None

    def _kept_state(self) -> torch.Tensor:
        state = None if self.cache is None else rollout_state(self.cache).last_hidden_state
        if state is None:
            raise LatentError(
                "A prompt may not begin with a latent placeholder: the first latent is made from the hidden state before "
                "it, and this cache holds none. Pass the prompt together with its latent block."
            )
        return state

    def _num_thought(self) -> int:
        """Number of latents of this block that an earlier piece of the prompt held."""
        return 0 if self.block.start or self.cache is None else rollout_state(self.cache).num_thought


def read_to_thought(
    model: PreTrainedModel,
    cache: Cache,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor,
    inputs: dict[str, Any],
) -> StormModelOutput:
    """Run a piece of a prompt that ends in `<|latent_start|>`, the first token that a thought adapter acts on.

    Args:
        model ([`StormModel`]):
            The model.
        cache ([`~transformers.Cache`]):
            Cache that the piece is written to.
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            The piece.
        attention_mask (`torch.Tensor`, *optional*):
            Of the whole prompt so far.
        position_ids (`torch.LongTensor`):
            Of the piece.
        inputs (`dict`):
            All else that the backbone takes.
    """
    block = LatentBlock(first=(input_ids.shape[1],) * len(input_ids), num_latents=0)
    think = LatentForward(model, block, cache, None, None)
    runner, tokens = think._open(cache, input_ids, attention_mask, position_ids, inputs)
    think._read_prompt(runner, tokens, inputs)
    rollout_state(cache).adapter_acts = True
    return _output_of(runner, cache)


def _output_of(runner: SegmentRunner, cache: Cache | None, latents: torch.Tensor | None = None) -> StormModelOutput:
    return StormModelOutput(
        last_hidden_state=runner.last_hidden_state,
        cache=cache,
        hidden_states=runner.hidden_states,
        attentions=runner.attentions,
        router_logits=runner.router_logits,
        latents=latents,
    )
