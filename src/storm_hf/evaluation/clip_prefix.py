"""Prompts about one clip that go on from one reading of it.

A decoder reads from left to right: what it keeps of the tokens up to the end of a clip does not depend on the question behind them.
So the clip is encoded and read once, into a key-value cache, and each prompt that begins with the same tokens and pixels goes on
from a copy of that cache. Which tokens these are is seen from the ids, whatever a chat template writes before or between them.

Axes: B batch, S sequence.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from storm_hf.errors import ConfigurationError
from storm_hf.model.latent_block_storm import PER_TOKEN_INPUTS
from storm_hf.model.modeling_storm import StormForConditionalGeneration


Inputs = Mapping[str, torch.Tensor]
_PER_TOKEN = ("input_ids", "attention_mask", *PER_TOKEN_INPUTS)
_CLIP_MASK = "clip_token_mask"  # for a second reading without the clip, which goes on from no cache


@dataclass(frozen=True, eq=False)
class ClipPrefix:
    """A prompt up to the last token of its clips, as a model has read it.

    Args:
        prompt (`Mapping[str, torch.Tensor]`):
            Its `input_ids` of shape `(1, prefix_length)`, and the pixels and grids of its clips, by which they are known again.
        cache ([`~transformers.Cache`]):
            Keys and values of one row. It is never written to: prompts go on from copies.
    """

    prompt: Inputs
    cache: Cache

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.prompt["input_ids"].shape[1]

    @property
    def num_bytes(self) -> int:
        """Size of the cache and the pixels."""
        return sum(held.numel() * held.element_size() for held in (*self.prompt.values(), *_tensors(self.cache)))


def _tensors(cache: Cache) -> Iterator[torch.Tensor]:
    """Keys, values and states of all layers."""
    for layer in cache.layers:
        for value in vars(layer).values():
            held = value.values() if isinstance(value, dict) else [value]  # linear attention numbers its states
            yield from (one for one in held if isinstance(one, torch.Tensor) and one.ndim)


def _drop_what_windows_left(cache: Cache) -> None:
    """Copy keys and values that are a window on those of all tokens, which it would keep in memory."""
    for layer in cache.layers:
        for name, value in vars(layer).items():
            if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes:
                setattr(layer, name, value.clone(memory_format=torch.contiguous_format))


def _clips_of(prompt: Inputs) -> dict[str, torch.Tensor]:
    return {name: value for name, value in prompt.items() if name not in (*_PER_TOKEN, _CLIP_MASK)}


def _tokens_of(prompt: Inputs) -> dict[str, torch.Tensor]:
    return {name: value for name, value in prompt.items() if name in _PER_TOKEN}


def _begin_alike(prompt: Inputs, other: Inputs, length: int) -> bool:
    """Check that two prompts have the same clips, and the same tokens up to their end."""
    clips, others = _clips_of(prompt), _clips_of(other)
    return (
        torch.equal(prompt["input_ids"][:, :length], other["input_ids"][:, :length])
        and clips.keys() == others.keys()
        and all(_are_equal(value, others[name]) for name, value in clips.items())
    )


def _are_equal(value: torch.Tensor, other: torch.Tensor) -> bool:
    return value is other or (value.dtype == other.dtype and torch.equal(value, other))


class ClipPrefixes:
    """The clips that a model has read last. One thread at a time asks; others may look at the counts.

    What cannot go on from a clip is read whole, and its `length` is 0: a prompt without a clip, and every prompt of a model with
    `latent_attention="step"`, whose mask is made of the whole of it, with a halting head, whose rows move apart in a cache of their
    own, with a static cache, or without any layer that attends.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model. Its weights must not change.
        max_clips (`int`, *optional*, defaults to `1`):
            Most prefixes that are kept; `None` bounds their bytes alone, `0` has every prompt read whole.
        max_bytes (`int`, *optional*):
            Most bytes that they have together, keys, values, states and pixels. One that is larger alone is used and not kept, and
            the others stay.

    Raises:
        ConfigurationError: If a bound is below zero.
    """

    def __init__(
        self, model: StormForConditionalGeneration, max_clips: int | None = 1, max_bytes: int | None = None
    ) -> None:
        for name, bound in {"max_clips": max_clips, "max_bytes": max_bytes}.items():
            if bound is not None and bound < 0:
                raise ConfigurationError(f"`{name}` must be 0 or more, or None for no bound, got {bound}.")
        self.model, self.max_clips, self.max_bytes = model, max_clips, max_bytes
        self.num_read = self.num_reused = 0
        self._kept: tuple[ClipPrefix, ...] = ()  # used last comes last
        cache = self._empty_cache()
        config = model.config
        needs_whole_prompt = config.latent_attention != "full" or config.halting_head
        reads_on = not needs_whole_prompt and not model.generation_config.cache_implementation
        self._goes_on = reads_on and not all(cache.is_linear) and 0 not in (max_clips, max_bytes)
        # A window counts columns, and a recurrent state runs over each of them: only full attention overlooks padding.
        self._takes_padding = all(type(layer) is DynamicLayer for layer in cache.layers)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """Size of what is kept."""
        return sum(prefix.num_bytes for prefix in self._kept)

    def length(self, prompt: Inputs) -> int:
        """Number of tokens up to the last one of a prompt's clips; 0 where it cannot be gone on from them.

        Args:
            prompt (`Mapping[str, torch.Tensor]`):
                Inputs of the model: one row without padding.
        """
        ids = prompt["input_ids"][0]
        places = torch.isin(ids, ids.new_tensor(self.model.config.vision_token_ids)).nonzero()
        length = int(places[-1]) + 1 if len(places) else 0
        is_padded = "attention_mask" in prompt and not bool(prompt["attention_mask"].all())
        return length if self._goes_on and length < len(ids) and not is_padded else 0

    def batches(self, prompts: Sequence[Inputs], batch_size: int) -> list[list[int]]:
        """Group prompts that [`resume`] takes together.

        Args:
            prompts (`Sequence`):
                One row each, without padding.
            batch_size (`int`):
                Most prompts of a group.

        Returns:
            `list[list[int]]`: Positions of the prompts. One that is read whole is alone.
        """
        groups: list[list[int]] = []
        for position, prompt in enumerate(prompts):
            open_groups = (group for group in groups if len(group) < batch_size)
            found = next((group for group in open_groups if self._go_together(prompts[group[0]], prompt)), None)
            if found is None:
                groups.append([position])
            else:
                found.append(position)
        return groups

    def _go_together(self, prompt: Inputs, other: Inputs) -> bool:
        length = self.length(prompt)
        needs_no_padding = self._takes_padding or prompt["input_ids"].shape == other["input_ids"].shape
        is_read_alike = length > 0 and self.length(other) == length and needs_no_padding
        return is_read_alike and _begin_alike(prompt, other, length)

    def read(self, prompt: Inputs) -> None:
        """Read the clips of a prompt, unless they are kept."""
        if length := self.length(prompt):
            self._prefix(prompt, length)

    def resume(self, prompts: Sequence[Inputs]) -> dict[str, Any]:
        """Make inputs of `generate` that go on from the clips of some prompts, which are read first if they are not kept.

        Args:
            prompts (`Sequence`):
                A group of [`batches`].

        Returns:
            `dict[str, Any]`: Whole prompts on the model's device, padded between clip and question, their positions, and a cache of the
            clip that may be written to. For a prompt that is read whole, itself.
        """
        device, length = self.model.device, self.length(prompts[0])
        if not length:
            return {name: value.to(device) for name, value in prompts[0].items()}
        prefix = self._prefix(prompts[0], length)
        width = max(prompt["input_ids"].shape[1] for prompt in prompts)
        pad_id = getattr(self.model.config.get_text_config(), "pad_token_id", None) or 0
        rows = [{**_tokens_of(prompt), "position_ids": self._positions(prompt)} for prompt in prompts]
        inputs: dict[str, Any] = {}
        for name in rows[0]:
            padding = pad_id if name == "input_ids" else 0
            padded = [_pad_at(row[name], length, width, padding) for row in rows]
            inputs[name] = torch.cat(padded, dim=-2).to(device)
        cache = copy.deepcopy(prefix.cache) if prefix in self._kept else prefix.cache
        if len(prompts) > 1:  # linear attention has no `batch_repeat_interleave`
            cache.reorder_cache(torch.zeros(len(prompts), dtype=torch.long, device=device))
        return {**inputs, "cache": cache}

    def _prefix(self, prompt: Inputs, length: int) -> ClipPrefix:
        same_length = (kept for kept in self._kept if kept.length == length)
        prefix = next((kept for kept in same_length if _begin_alike(kept.prompt, prompt, length)), None)
        if prefix is None:
            self.num_read += 1
            prefix = self._read(prompt, length)
        else:
            self.num_reused += 1
        if self.max_bytes is None or prefix.num_bytes <= self.max_bytes:
            self._kept = self._bounded([*(kept for kept in self._kept if kept is not prefix), prefix])
        return prefix

    def _bounded(self, prefixes: list[ClipPrefix]) -> tuple[ClipPrefix, ...]:
        """Drop those that were used longest ago, until the others may be kept."""
        most = len(prefixes) if self.max_clips is None else self.max_clips
        num_bytes = sum(prefix.num_bytes for prefix in prefixes)
        while len(prefixes) > most or (self.max_bytes is not None and num_bytes > self.max_bytes):
            num_bytes -= prefixes.pop(0).num_bytes
        return tuple(prefixes)

    @torch.no_grad()
    def _read(self, prompt: Inputs, length: int) -> ClipPrefix:
        """Encode the clips of a prompt and read it up to their end."""
        tokens = {name: value[..., :length] for name, value in _tokens_of(prompt).items()}
        inputs = {**tokens, "position_ids": self._positions(prompt)[..., :length], **_clips_of(prompt)}
        cache = self._empty_cache()
        on_device = {name: value.to(self.model.device) for name, value in inputs.items()}
        self.model(**on_device, cache=cache, use_cache=True, logits_to_keep=1)
        _drop_what_windows_left(cache)
        return ClipPrefix({"input_ids": prompt["input_ids"][:, :length].clone(), **_clips_of(prompt)}, cache)

    def _positions(self, prompt: Inputs) -> torch.Tensor:
        """Positions of a whole prompt, as its backbone counts them; what it remembers of other prompts has no part in them."""
        known = {name: value for name, value in prompt.items() if name not in ("input_ids", _CLIP_MASK)}
        return self.model._prepare_position_ids_for_generation(prompt["input_ids"], known)

    def _empty_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.get_text_config(decoder=True))


def _pad_at(values: torch.Tensor, column: int, width: int, padding: int) -> torch.Tensor:
    """Widen per-token values (..., 1, S) by padding before a column."""
    behind = torch.nn.functional.pad(values[..., column:], (width - values.shape[-1], 0), value=padding)
    return torch.cat([values[..., :column], behind], dim=-1)
