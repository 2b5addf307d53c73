"""Placeholders of videos and pictures that users type into a question."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import ProcessorMixin

from storm_hf.errors import PromptError, StormError
from storm_hf.training.conversation import Message


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
