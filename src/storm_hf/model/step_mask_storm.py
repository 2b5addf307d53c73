"""Attention masks of latent steps, and those of latents that keep to their own one (`latent_attention="step"`).

Of the second kind: the tokens of the clip are cut into K + 1 stretches of equal length, how it begins, then one for each step. A
latent is made from the stretch of its step, the first one also from the beginning, and from the latent before, which is what its
slot is fed. So a step is read the same however many came before, and a model can think for longer than it was trained to. What follows the block
sees the text and the last latent. The clip and the question see what they always do.

Axes: B batch, S sequence, K latent steps.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from .cache_storm import rollout_state
from .configuration_storm import StormConfig
from .errors_storm import ConfigurationError
from .latent_block_storm import LatentBlock


def step_attention(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, block: LatentBlock, config: StormConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Say which columns each column may see, and which of them the tokens to come may see.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            Whole prompts whose blocks lie in the same columns.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 where a token is.
        block ([`LatentBlock`]):
            Position of the latents.
        config ([`StormConfig`]):
            Knows which tokens stand for videos and images.

    Returns:
        `tuple[torch.BoolTensor, torch.BoolTensor]`: Of shape `(batch_size, sequence_length, sequence_length)` and
        `(batch_size, sequence_length)`.
    """
    is_token = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    is_clip = torch.isin(input_ids, input_ids.new_tensor(config.vision_token_ids)) & is_token  # (B, S)
    is_clip &= columns < block.start  # an answer may hold such an id, but no clip
    is_earlier_thought = (columns >= block.start - 1) & (
        columns < block.stop - 1
    )  # the start token, all latents but one
    is_seen_later = is_token & ~is_clip & ~is_earlier_thought  # (B, S)
    is_past = columns[:, None] >= columns  # (S, S)
    sees = is_past & is_token[:, None]  # (B, S, S)
    sees[:, block.start - 1 : block.stop - 1] = _stretches(is_clip, block.num_latents)
    sees[:, block.stop - 1] = False
    sees[:, block.stop :] = is_past[block.stop :] & is_seen_later[:, None]
    sees.diagonal(dim1=1, dim2=2).fill_(True)  # rows that would attend to nothing (padding) attend to themselves
    return sees, is_seen_later


def _stretches(is_clip: torch.Tensor, num_latents: int) -> torch.Tensor:
    """The tokens of the clip (B, S) that each latent is made from, (B, K, S)."""
    step = torch.arange(num_latents, device=is_clip.device)
    place, total = is_clip.cumsum(dim=1) - 1, is_clip.sum(dim=1, keepdim=True)  # (B, S), (B, 1)
    first = (step + 1) * total // (num_latents + 1) * (step > 0)  # (B, K)
    last = -(-(step + 2) * total // (num_latents + 1))  # rounded up
    return is_clip[:, None] & (place[:, None] >= first[..., None]) & (place[:, None] < last[..., None])


def as_mask(sees: torch.Tensor, decoder: PreTrainedModel) -> torch.Tensor:
    """Give a decoder its mask, (B, 1, S, S), in the form that its attention takes.

    Raises:
        ConfigurationError: If it takes none of its own.
    """
    implementation = decoder.config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise ConfigurationError(
            "`latent_attention='step'` needs attn_implementation='sdpa' or 'eager', but the backbone was loaded with "
            f"{implementation!r}. Load it with one of the two, or use 'full'."
        )
    if implementation == "sdpa":
        return sees[:, None]
    hidden = torch.finfo(decoder.dtype).min
    return torch.zeros_like(sees, dtype=decoder.dtype).masked_fill(~sees, hidden)[:, None]


def mask_of_single_tokens(
    attention_mask: torch.Tensor | None, has_padding: bool, decoder: PreTrainedModel
) -> torch.Tensor | None:
    """Prepare the mask of a sequence for passes over one token each, which see all tokens before them.

    From a mask of tokens a decoder would make one for its attention in each of these passes, and wait for the device to know
    whether there is padding. That is known here, and the mask is a view.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
            1 where a token is, the cached past included. A mask of any other kind is returned as it is.
        has_padding (`bool`):
            Whether it holds a 0.
        decoder ([`~transformers.PreTrainedModel`]):
            The language model. One that reads padding otherwise than by full `sdpa` attention keeps its mask of tokens.

    Returns:
        `torch.Tensor` or `None`: Of shape `(batch_size, 1, length, length)`; None if there is nothing to hide.
    """
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 2:
        return attention_mask
    if not has_padding:
        return None
    if decoder.config._attn_implementation != "sdpa" or _kinds_of_layers(decoder) != {"full_attention"}:
        return attention_mask
    return attention_mask.bool()[:, None, None].expand(-1, -1, attention_mask.shape[1], -1)


def _kinds_of_layers(decoder: PreTrainedModel) -> set[str]:
    every_layer = "sliding_attention" if getattr(decoder.config, "sliding_window", None) else "full_attention"
    return set(getattr(decoder.config, "layer_types", None) or [every_layer])


def check_layers(decoder: PreTrainedModel) -> None:
    """Refuse a decoder that has layers without a mask to replace.

    Raises:
        ConfigurationError: If a layer has other attention than a full one.
    """
    kinds = _kinds_of_layers(decoder)
    if kinds != {"full_attention"}:
        raise ConfigurationError(
            "`latent_attention='step'` needs a backbone whose layers have full attention, but this one has "
            f"{', '.join(sorted(kinds))}. Use 'full', or another backbone."
        )


def check_unchunked(block: LatentBlock, input_ids: torch.Tensor, cache: Cache | None) -> None:
    """Refuse a chunked prompt: the stretch that a latent sees depends on all of it.

    Raises:
        ConfigurationError: If there is a past, the block goes on in the next piece, or the cache is a static one, whose mask generation
            prepares.
    """
    if cache is not None and cache.is_compileable:
        raise ConfigurationError(
            f"With `latent_attention='step'` a prompt has its own mask, which no {type(cache).__name__} takes: it is static. Leave "
            "`cache_implementation` and `cache` out."
        )
    if (cache is not None and cache.get_seq_length()) or block.stop == input_ids.shape[1]:
        raise ConfigurationError(
            "With `latent_attention='step'` a prompt must be read whole: the clip, the block and `<|latent_end|>`. Leave "
            "`cache` and `prefill_chunk_size` out."
        )


def hides_thought(cache: Cache | None) -> bool:
    """Check for columns of a cached prompt that its answer may not see."""
    return cache is not None and rollout_state(cache).is_seen_later is not None


def hide_thought(attention_mask: torch.Tensor | None, cache: Cache, num_new: int) -> torch.Tensor:
    """Take what an answer may not see out of its mask, and remember that it may see the new tokens.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
            1 where a token is, the cached past included.
        cache ([`~transformers.Cache`]):
            With the prompt, and what `step_attention` said of it.
        num_new (`int`):
            Tokens that come now.

    Returns:
        `torch.LongTensor` of shape `(batch_size, length)`: 0 also where the prompt's thought hides a column.
    """
    length = cache.get_seq_length()
    state = rollout_state(cache)
    assert state.is_seen_later is not None, "`hides_thought` is asked first"
    is_seen_later = state.is_seen_later[:, :length]  # less than the prompt, if the cache was cropped or reset
    seen = nn.functional.pad(is_seen_later, (0, length + num_new - is_seen_later.shape[1]), value=True)
    state.is_seen_later = seen
    return seen.long() if attention_mask is None else attention_mask * seen
