"""Where the latent block lies in a batch of token ids.

A row holds at most one block, `<|latent_start|> <|latent|> x K <|latent_end|>`. Rows may be padded on either side; rows whose
blocks lie in different columns are moved so that the rollout advances all rows together, and moved back afterwards.

Axes: B batch, S sequence, L sequence after the rows were moved, K latent steps.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from .configuration_storm import StormConfig
from .errors_storm import LatentLayoutError


@dataclass(frozen=True)
class LatentBlock:
    """The latent block of a batch.

    Args:
        first (`torch.Tensor` of shape `(batch_size,)`):
            Column of each row's first placeholder.
        num_latents (`int`):
            Number K of placeholders, the same in every row.
    """

    first: torch.Tensor
    num_latents: int

    # Cached, since each look at a tensor waits for the device.

    @cached_property
    def start(self) -> int:
        """Column of the first placeholder once the rows are aligned."""
        return int(self.first.max())

    @property
    def stop(self) -> int:
        """Column after the last placeholder once the rows are aligned."""
        return self.start + self.num_latents

    @cached_property
    def is_aligned(self) -> bool:
        """Whether the blocks of all rows lie in the same columns."""
        return bool((self.first == self.first[0]).all())


def find_latent_block(input_ids: torch.Tensor, config: StormConfig, in_pieces: bool = False) -> LatentBlock | None:
    """Find the latent block of a batch and refuse everything that is not one whole block per row.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            Token ids of the prompt, or of a piece of it.
        config ([`StormConfig`]):
            Holds the three token ids and the bound of the rollout.
        in_pieces (`bool`, *optional*, defaults to `False`):
            Whether the ids may be a piece of a prompt (there is a cache), so that a block may be cut at its edges.

    Returns:
        [`LatentBlock`] or `None`: `None` if no row holds a placeholder.

    Raises:
        LatentLayoutError: If a latent id stands outside a block, a row has two blocks or none while others have one, the
            rows differ in K, or K exceeds `config.max_num_latents`.
    """
    start_id, latent_id, end_id = config.latent_block_ids
    if latent_id is None:
        return None
    is_latent = input_ids == latent_id
    is_block_token = is_latent | (input_ids == start_id) | (input_ids == end_id)
    if not is_block_token.any():
        return None
    counts = is_latent.sum(dim=1)
    first = is_latent.int().argmax(dim=1)
    if counts.any():
        _check_counts(counts, first, config, in_pieces)
    found = torch.where(is_block_token, input_ids, -1)
    if not _is_one_block(found, first, counts, config, in_pieces):
        raise LatentLayoutError(
            "Expected exactly one latent block per row, `<|latent_start|>`, then the placeholders, then "
            f"`<|latent_end|>`, and latent tokens nowhere else; got {_describe(found, config)}. Write prompts with the "
            "chat template of `storm_processor`, which renders the block in the last assistant turn only."
        )
    return LatentBlock(first, int(counts[0])) if counts.any() else None


def _check_counts(counts: torch.Tensor, first: torch.Tensor, config: StormConfig, in_pieces: bool) -> None:
    if not bool((counts == counts[0]).all()):
        raise LatentLayoutError(
            f"Every row of a batch needs the same number of latent placeholders, got {counts.tolist()}. Render all rows "
            "with one `num_latents`."
        )
    if int(counts[0]) > config.max_num_latents:
        raise LatentLayoutError(
            f"The rollout is bounded by max_num_latents={config.max_num_latents}, got {int(counts[0])} placeholders. "
            "Render fewer, or raise `config.max_num_latents`."
        )
    if not in_pieces and bool((first == 0).any()):
        raise LatentLayoutError(
            "A prompt may not begin with a latent placeholder: the first latent is made from the hidden state before it. "
            "Put `<|latent_start|>` and the question before the placeholders."
        )


def _is_one_block(
    found: torch.Tensor, first: torch.Tensor, counts: torch.Tensor, config: StormConfig, in_pieces: bool
) -> bool:
    """Whether `found` (B, S), the latent ids with -1 elsewhere, is one block, perhaps cut by an edge of a piece."""
    start_id, latent_id, end_id = (-1 if token_id is None else token_id for token_id in config.latent_block_ids)
    length = found.shape[1]
    if not counts.any():  # no placeholder: markers may stand only where a piece was cut
        is_inside = torch.cat([found[:, 1:].eq(end_id), found[:, :-1].eq(start_id)])
        return in_pieces and not bool(is_inside.any())
    columns = torch.arange(length, device=found.device).expand_as(found)  # (B, S)
    begin, end = first[:, None], (first + counts)[:, None]
    block = torch.where((columns >= begin) & (columns < end), latent_id, -1)
    block = torch.where(columns == begin - 1, start_id, block)
    block = torch.where(columns == end, end_id, block)
    is_whole = in_pieces or bool((end < length).all())
    return is_whole and torch.equal(block, found)


def _describe(found: torch.Tensor, config: StormConfig) -> str:
    token_ids = [token_id for token_id in config.latent_block_ids if token_id is not None]
    counts = [int(found.eq(token_id).sum(dim=1).max()) for token_id in token_ids]
    return f"up to {counts[0]} start, {counts[1]} placeholder and {counts[2]} end tokens in a row"


class RowAlignment:
    """Moves rows so that their latent blocks share columns, and moves results back.

    Args:
        block ([`LatentBlock`]):
            Where the blocks lie.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            1 where a token is. Columns that move in from beyond a row become padding.
    """

    def __init__(self, block: LatentBlock, attention_mask: torch.Tensor) -> None:
        shift = block.start - block.first  # (B,)
        length = attention_mask.shape[1]
        columns = torch.arange(length + int(shift.max()), device=shift.device)
        source = columns[None] - shift[:, None]  # (B, L)
        self.is_filled = (source >= 0) & (source < length)
        self.source = source.clamp(0, length - 1)
        self.home = torch.arange(length, device=shift.device)[None] + shift[:, None]  # (B, S)

    def move(self, values: torch.Tensor, padding: int = 0) -> torch.Tensor:
        """Move per-token values of shape `(..., batch_size, sequence_length)` to the shared columns."""
        source = self.source.expand(*values.shape[:-2], -1, -1)
        return (
            values.expand(*values.shape[:-2], source.shape[-2], -1)
            .gather(-1, source)
            .masked_fill(~self.is_filled, padding)
        )

    def move_back(self, states: torch.Tensor, dim: int = 1) -> torch.Tensor:
        """Move states, with the batch first and the moved sequence in `dim`, back to the caller's columns."""
        shape = [1] * states.ndim
        shape[0], shape[dim] = self.home.shape
        target = list(states.shape)
        target[dim] = self.home.shape[1]
        return states.gather(dim, self.home.view(shape).expand(target))
