"""The latent block: its layout in a batch of token ids, and how latents are fed to its placeholders.

A row holds at most one block, `<|latent_start|> <|latent|> x K <|latent_end|>`. Rows may be padded on either side; rows whose
blocks lie in different columns are moved so that the rollout advances all rows together, and moved back afterwards.

The backbone reads the ids of the placeholders, and its token embedding answers with latents: so it keeps its `input_ids`, by which
it finds its video tokens and looks up further embeddings of its own. Fed as `inputs_embeds`, a prompt with pixels would have its
video tokens searched among the embeddings, where noise (NEFTune) hides them and rows of zeros look like them.

Axes: B batch, S sequence, L sequence after the rows were moved, K latent steps, D hidden size.
"""

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput

from .configuration_storm import StormConfig
from .errors_storm import BackboneError, LatentError


PER_TOKEN_INPUTS = ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids")  # go with the ids of a prompt


@dataclass(frozen=True)
class LatentBlock:
    """The latent block of a batch.

    Args:
        first (`tuple[int, ...]`):
            Column of each row's first placeholder.
        num_latents (`int`):
            Number K of placeholders, the same in every row.
        has_padding (`bool`, *optional*, defaults to `True`):
            Whether the batch may hold padding.
    """

    first: tuple[int, ...]
    num_latents: int
    has_padding: bool = True

    @property
    def start(self) -> int:
        """Column of the first placeholder once the rows are aligned."""
        return max(self.first)

    @property
    def stop(self) -> int:
        """Column after the last placeholder once the rows are aligned."""
        return self.start + self.num_latents

    @property
    def is_aligned(self) -> bool:
        """True if the blocks of all rows lie in the same columns."""
        return len(set(self.first)) == 1


def find_latent_block(
    input_ids: torch.Tensor,
    config: StormConfig,
    is_chunk: bool = False,
    attention_mask: torch.Tensor | None = None,
) -> LatentBlock | None:
    """Find the latent block of a batch and refuse everything that is not one whole block per row.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            Token ids of the prompt, or of a piece of it.
        config ([`StormConfig`]):
            Holds the three token ids and the bound of the rollout.
        is_chunk (`bool`, *optional*, defaults to `False`):
            Whether the ids may be a piece of a prompt (there is a cache), so that a block may be cut at its edges.
        attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
            1 where a token is, the cached past included.

    Returns:
        [`LatentBlock`] or `None`: `None` if no row holds a placeholder.

    Raises:
        LatentError: If a latent id stands outside a block, a row has two blocks or none while others have one, the
            rows differ in K, or K exceeds `config.max_num_latents`.
    """
    if config.latent_token_id is None:
        return None
    seen = _Seen.of(input_ids, config, attention_mask)
    if not seen.has_block_token:
        return None
    if any(seen.counts):
        _check_counts(seen, config, is_chunk)
        is_one_block = seen.is_exact and (is_chunk or seen.ends_inside)
    else:  # no placeholder: markers may stand only where a piece was cut
        is_one_block = is_chunk and not seen.is_marker_inside
    if not is_one_block:
        raise LatentError(
            "Expected exactly one latent block per row, `<|latent_start|>`, then the placeholders, then "
            f"`<|latent_end|>`, and latent tokens nowhere else; got {_describe(input_ids, config)}. Write prompts with the "
            "chat template of `storm_processor`, which renders the block in the last assistant turn only."
        )
    return LatentBlock(seen.first, seen.counts[0], seen.has_padding) if any(seen.counts) else None


@dataclass(frozen=True)
class _Seen:
    """All that has to be known of a batch of ids, read off the device at once: each read waits for it."""

    has_block_token: bool
    is_exact: bool  # in every row, latent ids are a start, placeholders in a row, an end, and no others
    ends_inside: bool  # every row goes on after its placeholders
    is_marker_inside: bool  # a start before the last column, or an end after the first one
    has_padding: bool
    counts: tuple[int, ...]  # placeholders of each row
    first: tuple[int, ...]  # column of the first one, 0 if there is none

    @classmethod
    def of(cls, input_ids: torch.Tensor, config: StormConfig, attention_mask: torch.Tensor | None) -> "_Seen":
        start_id, latent_id, end_id = (-1 if token_id is None else token_id for token_id in config.latent_block_ids)
        is_token = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        is_latent = input_ids.eq(latent_id)
        is_block_token = is_latent | input_ids.eq(start_id) | input_ids.eq(end_id)
        found = torch.where(is_block_token, input_ids, -1)
        counts, first = is_latent.sum(dim=1), is_latent.int().argmax(dim=1)  # (B,)
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        begin, end = first[:, None], (first + counts)[:, None]
        block = torch.where((columns >= begin) & (columns < end), latent_id, -1)
        block = torch.where(columns == begin - 1, start_id, block)
        block = torch.where(columns == end, end_id, block)
        facts = [
            is_block_token.any(),
            (block == found).all(),
            (end < input_ids.shape[1]).all(),
            (found[:, 1:] == end_id).any() | (found[:, :-1] == start_id).any(),
            (is_token == 0).any(),
        ]
        read = torch.cat([torch.stack(facts).to(counts.dtype), counts, first]).tolist()
        rows = read[len(facts) :]
        counts_of_rows, first_of_rows = tuple(rows[: len(input_ids)]), tuple(rows[len(input_ids) :])
        has_block_token, is_exact, ends_inside, is_marker_inside, has_padding = map(bool, read[: len(facts)])
        return cls(
            has_block_token, is_exact, ends_inside, is_marker_inside, has_padding, counts_of_rows, first_of_rows
        )


def _check_counts(seen: _Seen, config: StormConfig, is_chunk: bool) -> None:
    if len(set(seen.counts)) > 1:
        raise LatentError(
            f"Every row of a batch needs the same number of latent placeholders, got {list(seen.counts)}. Render all rows "
            "with one `num_latents`."
        )
    if seen.counts[0] > config.max_num_latents:
        raise LatentError(
            f"The rollout is bounded by max_num_latents={config.max_num_latents}, got {seen.counts[0]} placeholders. "
            "Render fewer, or raise `config.max_num_latents`."
        )
    if not is_chunk and 0 in seen.first:
        raise LatentError(
            "A prompt may not begin with a latent placeholder: the first latent is made from the hidden state before it. "
            "Put `<|latent_start|>` and the question before the placeholders."
        )


def refuse_without_block(**given: object) -> None:
    """Refuse what acts on latents for a prompt that has none.

    Args:
        given (`dict`):
            Arguments by name; `None` where one was left out.

    Raises:
        LatentError: If there is one.
    """
    names = [f"`{name}`" for name, value in given.items() if value is not None]
    if names:
        raise LatentError(
            f"{' and '.join(names)}: Expected `input_ids` with a latent block, which this acts on, got none. Render the prompt "
            "with num_latents=1 or more, or leave the argument out."
        )


def refuse_embedded_block(inputs_embeds: torch.Tensor, embeddings: nn.Module, config: StormConfig) -> None:
    """Refuse a prompt that is given as embeddings and has a latent block: the rollout finds the block among `input_ids`.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
            The prompt.
        embeddings (`torch.nn.Module`):
            The token embedding.
        config ([`StormConfig`]):
            Holds the ids of the block.

    Raises:
        LatentError: If the start token and a placeholder follow each other in a row.
    """
    start_id, latent_id, _ = config.latent_block_ids
    if start_id is None or latent_id is None or inputs_embeds.shape[1] < 2:
        return
    with torch.no_grad():
        start, latent = embeddings(torch.tensor([start_id, latent_id], device=inputs_embeds.device))
        is_start, is_latent = ((inputs_embeds == token).all(dim=-1) for token in (start, latent))  # (B, S)
    if bool((is_start[:, :-1] & is_latent[:, 1:] & (start != latent).any()).any()):
        raise LatentError(
            "Expected `input_ids`, in which the rollout finds the latent block, got `inputs_embeds` with such a block: the prompt "
            "would be answered without thinking. Pass `input_ids`, or render the prompt with num_latents=0. Prompt tuning, which "
            "makes embeddings of every prompt, cannot train latents; use LoRA."
        )


def _describe(input_ids: torch.Tensor, config: StormConfig) -> str:
    token_ids = [token_id for token_id in config.latent_block_ids if token_id is not None]
    counts = [int(input_ids.eq(token_id).sum(dim=1).max()) for token_id in token_ids]
    return f"up to {counts[0]} start, {counts[1]} placeholder and {counts[2]} end tokens in a row"


class RowAlignment:
    """Moves rows so that their latent blocks share columns, and moves results back.

    Args:
        block ([`LatentBlock`]):
            Position of the blocks.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            1 where a token is. Columns that move in from beyond a row become padding.
    """

    def __init__(self, block: LatentBlock, attention_mask: torch.Tensor) -> None:
        shift = attention_mask.new_tensor([block.start - first for first in block.first], dtype=torch.long)  # (B,)
        length = attention_mask.shape[1]
        columns = torch.arange(length + block.start - min(block.first), device=shift.device)
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

    def move_output_back(self, output: ModelOutput) -> None:
        """Move all that a backbone returned for each token back to the caller's columns, in place."""
        output.last_hidden_state = self.move_back(output.last_hidden_state)
        if output.hidden_states is not None:
            output.hidden_states = tuple(
                layer if layer is None else self.move_back(layer) for layer in output.hidden_states
            )
        if output.attentions is not None:
            output.attentions = tuple(
                layer if layer is None else self.move_back(self.move_back(layer, dim=2), dim=3)
                for layer in output.attentions
            )
        if output.router_logits is not None:  # flat or not
            output.router_logits = tuple(
                self.move_back(layer.reshape(len(self.home), -1, layer.shape[-1])).flatten(0, 1)
                for layer in output.router_logits
            )


class feeding_latents:  # noqa: N801 (a context manager, used like a function)
    """While it is open, the token embedding of a sequence has latents in the place of its placeholders.

    The hook is the last one of the embedding, so noise that another one adds to tokens does not reach the latents.

    Args:
        embedding (`nn.Module`):
            The backbone's token embedding.
        sequence_shape (`tuple[int, int]`):
            B and S of the ids that are read. The embedding of anything else is left alone.
        start (`int`):
            Column of the first latent.
        embeds (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            Input embeddings to feed; cast to the dtype of the tokens beside it.

    Raises:
        BackboneError: If the ids were never embedded, so that nothing was fed.
    """

    def __init__(
        self, embedding: nn.Module, sequence_shape: tuple[int, int], start: int, embeds: torch.Tensor
    ) -> None:
        self.embedding, self.sequence_shape = embedding, sequence_shape
        self.start, self.embeds = start, embeds
        self.thread = threading.get_ident()  # a model may serve several at a time
        self.was_fed = False

    def __enter__(self) -> Self:
        self.hook = self.embedding.register_forward_hook(self._put)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hook.remove()
        if error is None and not self.was_fed:
            raise BackboneError(
                "Expected the backbone to embed its `input_ids` with what `get_input_embeddings()` gives, where latents are put "
                f"in, but it never called this {type(self.embedding).__name__}. Use another backbone."
            )

    def _put(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor | None:
        if tuple(output.shape[:-1]) != self.sequence_shape or threading.get_ident() != self.thread:
            return None
        self.was_fed = True
        if self.embeds.shape[1] == output.shape[1]:  # tokens get no gradient of zeros, as wide as the vocabulary
            return self.embeds.to(output)
        stop = self.start + self.embeds.shape[1]
        return torch.cat([output[:, : self.start], self.embeds.to(output), output[:, stop:]], dim=1)  # (B, S, D)
