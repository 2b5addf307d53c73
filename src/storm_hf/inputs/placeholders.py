"""Placeholder tokens of a clip: those that a processor writes, with the text around them, and those that users type.

The prompt without its clip, which `latent_bottleneck` answers from, has to be without all of them: they tell how long a clip is and how
many frames it has. Only the processor knows the text, and only the ids tell what became of it, so the two are compared: by the control
tokens, which no user can write, and by the length of the words around them.

Axes: B batch, S sequence.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from storm_hf.errors import PromptError, StormError
from storm_hf.inputs.conversation import Message


def asks_for_clip_text(processor: ProcessorMixin) -> dict[str, bool]:
    """Arguments that make a processor return the text it wrote for each clip; empty if it does not support them."""
    writes_as_all_do = type(processor).replace_video_token is not ProcessorMixin.replace_video_token
    return {"return_text_replacement_offsets": True} if writes_as_all_do else {}


def with_clip_token_mask(encoded: dict[str, Any], processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    """Turn a processor's text offsets into a mask of its tokens.

    Args:
        encoded (`dict`):
            An encoded batch, with or without `text_replacement_offsets`.
        processor ([`~transformers.ProcessorMixin`]):
            Encoded it.

    Returns:
        `dict`: The batch without them, and, if they were there and agree with the ids, with `clip_token_mask` of shape
        `(batch_size, sequence_length)`, True where any character of a token was written for a video, a picture or their sound.
    """
    batch = dict(encoded)
    replaced = batch.pop("text_replacement_offsets", None)
    if replaced is None:
        return batch
    ids = batch["input_ids"]
    mask = torch.zeros_like(ids, dtype=torch.bool)
    finder = _ClipFinder(processor.tokenizer)
    for row, replacements in enumerate(replaced):
        spans = list(finder.spans(ids[row].tolist(), [each["replacement"] for each in replacements]))
        if len(spans) < len(replacements):
            return batch
        for first, last in spans:
            mask[row, first : last + 1] = True
    batch["clip_token_mask"] = mask
    return batch


class _ClipFinder:
    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.control_ids = set(tokenizer.get_added_vocab().values())

    def spans(self, ids: list[int], texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """First and last column of each text, in order, as long as they are found."""
        columns = [column for column, token_id in enumerate(ids) if token_id in self.control_ids]
        controls = [ids[column] for column in columns]
        position = 0
        for text in texts:
            own = self.tokenizer.encode(text, add_special_tokens=False)
            places = [place for place, token_id in enumerate(own) if token_id in self.control_ids]
            found = _find([own[place] for place in places], controls, position) if places else None
            if found is None:
                return
            position = found + len(places)
            yield (
                self._extend(ids, columns[found], own[: places[0]], step=-1),
                self._extend(ids, columns[position - 1], own[places[-1] + 1 :], step=1),
            )

    def _extend(self, ids: list[int], column: int, words: list[int], step: int) -> int:
        """Go on from a control token over as many characters as `words` have, and not over another control token."""
        missing = len(self.tokenizer.decode(words))
        while missing > 0 and 0 <= column + step < len(ids) and ids[column + step] not in self.control_ids:
            column += step
            missing -= len(self.tokenizer.decode([ids[column]]))
        return column


def _find(wanted: list[int], values: list[int], position: int) -> int | None:
    """Find the place where `wanted` begins in `values`, from a position on."""
    for start in range(position, len(values) - len(wanted) + 1):
        if values[start] == wanted[0] and values[start : start + len(wanted)] == wanted:
            return start
    return None


@contextmanager
def typed_placeholders_named(conversations: Sequence[Sequence[Message]], processor: ProcessorMixin) -> Iterator[None]:
    """Name the placeholder of a video or a picture that stands in a text, where a processor takes it for one of its own.

    Most take it as text, by the marks of `sanitize_control_tokens`. InternVL's counts it and refuses.

    Args:
        conversations (`Sequence[Sequence[Message]]`):
            Arguments of the processor within the block.
        processor ([`~transformers.ProcessorMixin`]):
            Knows its placeholders.

    Raises:
        PromptError: If the processor refuses, and a text has such a placeholder.
    """
    try:
        yield
    except ValueError as error:
        texts = [part.get("text", "") for chat in conversations for message in chat for part in message["content"]]
        names = (getattr(processor, f"{medium}_token", None) for medium in ("video", "image"))
        typed = next((name for name in names if name and any(name in text for text in texts)), None)
        if isinstance(error, StormError) or typed is None:
            raise
        raise PromptError(
            f"Expected a question and options without {typed!r}, which {type(processor).__name__} takes for a video or a "
            "picture. Write it in another way."
        ) from error
