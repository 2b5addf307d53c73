"""Runs one sequence through the backbone piece by piece, in one key-value cache, and puts the pieces together again.

Axes: B batch, S sequence, D hidden size, H attention heads.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput

from .cache_storm import ReplayCache


AttentionMask = torch.Tensor | dict[str, torch.Tensor | None] | None


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
    """

    def __init__(
        self,
        body: nn.Module,
        cache: Cache | None,
        attention_mask: AttentionMask,
        position_ids: torch.Tensor,
        options: dict[str, Any],
    ) -> None:
        self.body = body
        self.cache = cache
        self.attention_mask = attention_mask
        self.position_ids = position_ids
        self.options = options
        # A static cache returns the counter itself, which moves.
        self.past_length = 0 if cache is None else int(cache.get_seq_length())
        self.pieces: list[ModelOutput] = []

    def __call__(self, start: int, stop: int, **inputs: Any) -> torch.Tensor:
        """Run columns `start` to `stop`; return their last hidden states, (B, stop - start, D)."""
        keeps_cache = self.cache is not None
        if isinstance(self.cache, ReplayCache):
            self.cache = self.cache.fork()
            keeps_cache = False  # checkpointed layers warn about use_cache=True, and write to the cache all the same
        piece = self.body(
            attention_mask=self._mask(self.attention_mask, start, stop),
            position_ids=self.position_ids[..., start:stop],
            cache=self.cache,
            use_cache=keeps_cache,
            return_dict=True,
            **self.options,
            **inputs,
        )
        self.pieces.append(piece)
        return piece.last_hidden_state

    def branch(self) -> "SegmentRunner":
        """Go on from here without leaving a trace: what the branch writes, this runner does not see."""
        branch = copy.copy(self)
        branch.cache, branch.pieces = ReplayCache(self.cache), []
        return branch

    def _mask(self, mask: AttentionMask, start: int, stop: int) -> AttentionMask:
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
        return tuple(torch.cat([by_row(piece, num_rows) for piece in layer], dim=1).flatten(0, 1) for layer in layers)


def by_row(router_logits: torch.Tensor, num_rows: int) -> torch.Tensor:
    """The router logits of one layer, which come flat or not, as (B, S, experts)."""
    return router_logits.reshape(num_rows, -1, router_logits.shape[-1])


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
