"""Key-value caches that gradients and activation checkpointing can go through.

The rollout writes its own cache step by step and, in Stage II, is differentiated through it. Full attention only ever
concatenates, which autograd follows; linear attention copies in place, which it does not. Activation checkpointing runs
each layer twice, so there a write must be a pure function of the past.

Axes: B batch, S sequence, D hidden size, H attention heads.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, LinearAttentionLayer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput

from .errors_storm import ConfigurationError
from .thought_adapter_storm import acting


@dataclass
class RolloutState:
    """State of a rollout that its cache carries along, whatever the class of the cache: a chunked prefill goes on from it.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, hidden_size)`, *optional*):
            State of the last position, from which the next latent is made.
        num_thought (`int`, *optional*, defaults to `0`):
            Number of latents of an unfinished block that the cache holds.
        is_seen_later (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
            True where later tokens may look, with `latent_attention="step"`.
        adapter_acts (`bool`, *optional*, defaults to `False`):
            Whether the thought adapter acts on what comes next.
        compiled_step (`Callable`, *optional*):
            The backbone without its head, compiled, for a prompt whose decoding steps are compiled too.
    """

    last_hidden_state: torch.Tensor | None = None
    num_thought: int = 0
    is_seen_later: torch.Tensor | None = None
    adapter_acts: bool = False
    compiled_step: Callable[..., ModelOutput] | None = None

    def keep(self, hidden_states: torch.Tensor, num_thought: int = 0) -> None:
        """Keep the last of some hidden states (B, S, D) and the length of an unfinished block."""
        self.last_hidden_state = hidden_states[:, -1].clone()  # not a view of the prompt
        self.num_thought = num_thought


def rollout_state(cache: Cache) -> RolloutState:
    """Return the rollout state of a cache, which is copied with it; at first an empty one."""
    if not hasattr(cache, "storm_rollout"):
        cache.storm_rollout = RolloutState()
    return cache.storm_rollout


class _OutOfPlaceLinearLayer(LinearAttentionLayer):
    """A linear-attention state that is replaced instead of overwritten, so that autograd keeps the old one."""

    def __init__(self, number_of_states: int = 1) -> None:
        super().__init__(number_of_states=number_of_states)
        self.record_past = True  # makes the models pass single tokens through `update_conv_state` too

    def update_conv_state(
        self, conv_states: torch.Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: object
    ) -> torch.Tensor:
        full, kept = self._extend(conv_states, state_idx, conv_kernel_size)
        self.conv_states[state_idx] = kept
        self.has_previous_state[state_idx] = self.is_conv_states_initialized[state_idx] = True
        return full

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, state_idx: int = 0, **kwargs: object
    ) -> torch.Tensor:
        self.recurrent_states[state_idx] = recurrent_states
        self.is_recurrent_states_initialized[state_idx] = True
        return recurrent_states

    def _extend(
        self, conv_states: torch.Tensor, state_idx: int, conv_kernel_size: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the convolution's left context; return all of it and the part that the next call needs."""
        if self.device is None:  # type: ignore[has-type]
            self.dtype, self.device = conv_states.dtype, conv_states.device
        if not self.is_conv_states_initialized[state_idx]:
            self.conv_kernel_size[state_idx] = conv_kernel_size or conv_states.shape[-1]
        kernel = self.conv_kernel_size[state_idx]
        if self.has_previous_state[state_idx]:
            full = torch.cat([self.conv_states[state_idx], conv_states], dim=-1)
            return full, full[..., -kernel:]
        padded = torch.nn.functional.pad(conv_states, (max(kernel - conv_states.shape[-1], 0), 0))
        return conv_states, padded[..., -kernel:]


class DifferentiableCache(DynamicCache):
    """A dynamic cache whose every update is out of place, for gradients through the rollout."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.layers = [
            _OutOfPlaceLinearLayer(layer.number_of_states) if type(layer) is LinearAttentionLayer else layer
            for layer in self.layers  # type: ignore[has-type]
        ]


_Piece = tuple[torch.Tensor, torch.Tensor]  # keys and values of some columns, (B, heads, columns, head size)


class _ReplayLayer(DynamicLayer):
    """Opens on a frozen past; `update` may be called any number of times and always gives the same answer.

    The past stays in the pieces that wrote it. Joined, it would be a copy for every latent step, all of them alive until the
    backward pass.
    """

    def __init__(self, past: DynamicLayer) -> None:
        super().__init__()
        self.past: tuple[_Piece, ...] = ()
        self.written: _Piece | None = None
        if isinstance(past, _ReplayLayer):
            self.past = past.past if past.written is None else (*past.past, past.written)
        elif past.is_initialized:
            self.past = ((past.keys, past.values),)
        if self.past:
            self._know(self.past[0][0])

    def _know(self, keys: torch.Tensor) -> None:
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.written is None:
            self.written = (key_states, value_states)
            self._know(key_states)
        if not self.past:
            return key_states, value_states
        keys, values = zip(*self.past, (key_states, value_states), strict=True)
        return torch.cat(keys, dim=-2), torch.cat(values, dim=-2)

    def get_seq_length(self) -> int:
        pieces = self.past if self.written is None else (*self.past, self.written)
        return sum(keys.shape[-2] for keys, _ in pieces)


class _ReplayLinearLayer(_OutOfPlaceLinearLayer):
    """The same for linear attention: reads always see the frozen past, the first write of each state wins."""

    def __init__(self, past: LinearAttentionLayer) -> None:
        super().__init__(number_of_states=past.number_of_states)
        self.dtype, self.device = past.dtype, past.device
        written = past.written if isinstance(past, _ReplayLinearLayer) else {}
        for index in range(past.number_of_states):
            self.conv_states[index] = written.get(("conv", index), past.conv_states[index])
            self.recurrent_states[index] = written.get(("recurrent", index), past.recurrent_states[index])
            self.conv_kernel_size[index] = past.conv_kernel_size[index]
            has_state = ("conv", index) in written or past.has_previous_state[index]
            self.has_previous_state[index] = self.is_conv_states_initialized[index] = has_state
            self.is_recurrent_states_initialized[index] = self.recurrent_states[index] is not None
        self.written: dict[tuple[str, int], torch.Tensor] = {}

    def update_conv_state(
        self, conv_states: torch.Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: object
    ) -> torch.Tensor:
        full, kept = self._extend(conv_states, state_idx, conv_kernel_size)
        self.written.setdefault(("conv", state_idx), kept)
        return full

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, state_idx: int = 0, **kwargs: object
    ) -> torch.Tensor:
        self.written.setdefault(("recurrent", state_idx), recurrent_states)
        return recurrent_states


_REPLAYED = (DynamicLayer, LinearAttentionLayer, _OutOfPlaceLinearLayer, _ReplayLayer, _ReplayLinearLayer)


class ReplayCache(DynamicCache):
    """One piece of a sequence on top of a frozen past.

    Activation checkpointing recomputes a layer in the backward pass, which calls `update` again. Here that changes
    nothing, so gradients are exact and the memory kept between the passes does not grow with the rollout. `fork` opens
    the next piece. Several pieces may be opened on one past, as the sweeps of `jacobi_sweeps` are.

    Raises:
        ConfigurationError: If the model has a kind of layer (sliding window) that cannot be replayed.
    """

    def __init__(self, past: Cache) -> None:
        for layer in past.layers:
            if type(layer) not in _REPLAYED:
                raise ConfigurationError(
                    "Gradient checkpointing and `jacobi_sweeps` need full or linear attention, but the backbone has a "
                    f"{type(layer).__name__}. Train with gradient_checkpointing=False, and without `jacobi_sweeps`."
                )
        layers = [
            _ReplayLinearLayer(layer) if isinstance(layer, LinearAttentionLayer) else _ReplayLayer(layer)
            for layer in past.layers
        ]
        super(DynamicCache, self).__init__(layers=layers)

    def fork(self) -> "ReplayCache":
        """Freeze what was written and open the next piece on it."""
        return ReplayCache(self)

    @classmethod
    def open(cls, config: PreTrainedConfig) -> "ReplayCache":
        """Open on an empty past."""
        return cls(DynamicCache(config=config))


def open_cache(config: PreTrainedConfig, has_gradient: bool, is_checkpointing: bool) -> DynamicCache:
    """Make the cache that a rollout without a cache of its own writes to.

    Args:
        config ([`PreTrainedConfig`]):
            The language model's configuration.
        has_gradient (`bool`):
            Whether autograd records the rollout.
        is_checkpointing (`bool`):
            Whether layers are recomputed in the backward pass.
    """
    if is_checkpointing:
        return ReplayCache.open(config)
    return DifferentiableCache(config) if has_gradient else DynamicCache(config=config)


_AttentionMask = torch.Tensor | dict[str, torch.Tensor | None] | None


class SegmentRunner:
    """The backbone, seen as a function of a range of columns.

    Args:
        body (`nn.Module`):
            The backbone without its head.
        cache ([`~transformers.Cache`], *optional*):
            Cache that all chunks write to. A sequence that is run in one chunk needs none.
        attention_mask (`torch.Tensor` or `dict`, *optional*):
            Mask of the whole sequence, the cached past included: `(batch_size, length)`, or what generation prepares for
            a static cache, `(batch_size, 1, sequence_length, length)`, one or one per kind of layer.
        position_ids (`torch.LongTensor` of shape `(..., batch_size, sequence_length)`):
            Positions of the whole sequence.
        options (`dict`):
            Options passed to every chunk: `output_hidden_states` and the like.
        thought_layers (`Sequence[nn.Module]`, *optional*):
            Layers with a thought adapter.
        thought_start (`int`, *optional*, defaults to `0`):
            First column that it acts on: that of `<|latent_start|>`. No chunk lies across it.

    Attributes:
        mask_of_single_tokens (`torch.Tensor` or `dict`, *optional*):
            Mask of chunks of one column; at first that of all others.
    """

    def __init__(
        self,
        body: nn.Module,
        cache: Cache | None,
        attention_mask: _AttentionMask,
        position_ids: torch.Tensor,
        options: dict[str, Any],
        thought_layers: Sequence[nn.Module] = (),
        thought_start: int = 0,
    ) -> None:
        self.body = body
        self.cache = cache
        if isinstance(attention_mask, dict) and any(mask is None for mask in attention_mask.values()):
            attention_mask = None  # `generate` hides nothing from the whole prompt; its pieces need masks of their own
        self.attention_mask = self.mask_of_single_tokens = attention_mask
        self.position_ids = position_ids
        self.options = options
        self.thought_layers, self.thought_start = thought_layers, thought_start
        # A static cache returns the counter itself, which moves.
        self.past_length = 0 if cache is None else int(cache.get_seq_length())
        self.pieces: list[ModelOutput] = []

    def __call__(self, start: int, stop: int, **inputs: object) -> torch.Tensor:
        """Run columns `start` to `stop`; return their last hidden states, (B, stop - start, D)."""
        keeps_cache = self.cache is not None
        if isinstance(self.cache, ReplayCache):
            self.cache = self.cache.fork()
            keeps_cache = False  # checkpointed layers warn about use_cache=True, and write to the cache all the same
        with acting(self.thought_layers, start >= self.thought_start):
            piece = self.body(
                **self._columns(start, stop),
                cache=self.cache,
                use_cache=keeps_cache,
                return_dict=True,
                **self.options,
                **inputs,
            )
        self.pieces.append(piece)
        return piece.last_hidden_state

    def run_compiled(
        self, body: Callable[..., ModelOutput], start: int, stop: int, **inputs: torch.Tensor
    ) -> torch.Tensor:
        """Run columns with the compiled body, without options: every length of a sequence has the same graph.

        Slices are copied, since their strides tell the length, and so is the state, which the next run of a CUDA graph writes
        over.
        """
        piece = body(
            **_copy({**self._columns(start, stop), **inputs}), cache=self.cache, use_cache=True, return_dict=True
        )
        piece.last_hidden_state = piece.last_hidden_state.clone()
        self.pieces.append(piece)
        return piece.last_hidden_state

    def branch(self) -> "SegmentRunner":
        """Go on from here without leaving a trace: what the branch writes, this runner does not see."""
        branch = copy.copy(self)
        branch.cache, branch.pieces = ReplayCache(self.cache), []
        return branch

    def _columns(self, start: int, stop: int) -> dict[str, Any]:
        """Take the part of mask and positions that belongs to some columns."""
        mask = self.mask_of_single_tokens if stop - start == 1 else self.attention_mask
        return {"attention_mask": self._mask(mask, start, stop), "position_ids": self.position_ids[..., start:stop]}

    def _mask(self, mask: _AttentionMask, start: int, stop: int) -> _AttentionMask:
        if isinstance(mask, dict):  # one per kind of layer; linear attention takes a mask of the new columns alone
            return {
                kind: one[:, start:stop] if one is not None and one.ndim == 2 else self._tensor_mask(one, start, stop)
                for kind, one in mask.items()
            }
        return self._tensor_mask(mask, start, stop)

    def _tensor_mask(self, mask: torch.Tensor | None, start: int, stop: int) -> torch.Tensor | None:
        if mask is None:
            return None
        if mask.ndim == 2:
            return mask[:, : self.past_length + stop]
        is_static = self.cache is not None and self.cache.is_compileable
        columns = mask.shape[-1] if is_static else self.past_length + stop
        return mask[:, :, start:stop, :columns]

    @property
    def last_hidden_state(self) -> torch.Tensor:
        """Last hidden states of the whole sequence, (B, S, D)."""
        return torch.cat([piece.last_hidden_state for piece in self.pieces], dim=1)

    @property
    def hidden_states(self) -> tuple[torch.Tensor | None, ...] | None:
        """Hidden states of every layer over the whole sequence, each (B, S, D), of the layers that were asked for."""
        if self.pieces[0].get("hidden_states") is None:
            return None
        return tuple(_join(layer) for layer in zip(*(piece.hidden_states for piece in self.pieces), strict=True))

    @property
    def attentions(self) -> tuple[torch.Tensor | None, ...] | None:
        """Attention of every layer over the whole sequence, each (B, H, S, past + S), if it was asked for."""
        if self.pieces[0].get("attentions") is None:
            return None
        return tuple(_stack_queries(layer) for layer in zip(*(piece.attentions for piece in self.pieces), strict=True))

    @property
    def router_logits(self) -> tuple[torch.Tensor, ...] | None:
        """Choice of experts in every layer with experts, each (B * S, experts), if it was asked for."""
        if not self.pieces[0].get("router_logits"):
            return None
        num_rows = len(self.pieces[0].last_hidden_state)
        layers = zip(*(piece.router_logits for piece in self.pieces), strict=True)
        pieces = [[piece.reshape(num_rows, -1, piece.shape[-1]) for piece in layer] for layer in layers]  # flat or not
        return tuple(torch.cat(layer, dim=1).flatten(0, 1) for layer in pieces)


def _copy(inputs: Any) -> Any:
    """Copy tensors, also those in a dictionary, to contiguous memory of their own."""
    if isinstance(inputs, dict):
        return {name: _copy(value) for name, value in inputs.items()}
    return inputs.clone(memory_format=torch.contiguous_format) if isinstance(inputs, torch.Tensor) else inputs


def _join(pieces: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    """Join the hidden states of consecutive columns; a layer that was not asked for has none in any piece."""
    captured = [piece for piece in pieces if piece is not None]
    return torch.cat(captured, dim=1) if captured else None


def _stack_queries(pieces: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    """Stack the attention of consecutive queries; earlier pieces had fewer keys, to which they pay no attention."""
    attended = [piece for piece in pieces if piece is not None]
    if not attended:  # a linear-attention layer
        return None
    num_keys = attended[-1].shape[-1]
    return torch.cat([nn.functional.pad(piece, (0, num_keys - piece.shape[-1])) for piece in attended], dim=2)


def checkpointed_layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers that a rollout recomputes in its backward pass; none where nothing is checkpointed.

    Raises:
        ConfigurationError: If layers are checkpointed in the reentrant way.
    """
    if not (model.training and torch.is_grad_enabled()):
        return []
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    checkpointed = [layer for layer in layers if layer.gradient_checkpointing]
    for layer in checkpointed:
        checkpoint = layer._gradient_checkpointing_func
        if isinstance(checkpoint, partial) and checkpoint.keywords.get("use_reentrant", True):
            raise ConfigurationError(
                "Expected checkpointed layers with `use_reentrant=False`, got reentrant ones: those lose the gradient "
                "that reaches the rollout through the keys and values of earlier steps, silently. Call "
                '`model.activation_checkpointing_enable({"use_reentrant": False})`.'
            )
    return layers if checkpointed else []


class checkpointing_with_cache:  # noqa: N801 (a context manager, used like a function)
    """Lets checkpointed layers keep their cache while a rollout runs.

    transformers drops the cache of a checkpointed layer, since a second write would corrupt it. A [`ReplayCache`] takes
    second writes.
    """

    def __init__(self, layers: list[GradientCheckpointingLayer]) -> None:
        self.layers = layers

    def __enter__(self) -> None:
        for layer in self.layers:
            layer._can_checkpoint_with_cache = True

    def __exit__(self, *exception: object) -> None:
        for layer in self.layers:
            del layer._can_checkpoint_with_cache
