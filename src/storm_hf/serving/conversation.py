"""Messages of a request in the form that the prompt encoder takes, with decoded images and videos."""

from collections.abc import Sequence
from typing import Any

from transformers import ProcessorMixin

from storm_hf.serving.media import MediaPolicy
from storm_hf.serving.request import ImagePart, Message, TextPart, VideoPart


def decode_messages(
    messages: Sequence[Message], processor: ProcessorMixin, media: MediaPolicy
) -> list[dict[str, Any]]:
    """Decode the images and videos of a conversation.

    Args:
        messages (`Sequence[Message]`):
            The conversation.
        processor ([`~transformers.ProcessorMixin`]):
            Determines how videos are sampled.
        media ([`MediaPolicy`]):
            Allowed sources and sizes.

    Raises:
        RequestError: If a file is not allowed or cannot be decoded.
    """
    return [
        {"role": message.role, "content": [_decode(part, processor, media) for part in message.content]}
        for message in messages
    ]


def _decode(part: TextPart | ImagePart | VideoPart, processor: ProcessorMixin, media: MediaPolicy) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image", "image": media.image(part.image_url.url)}
    return {"type": "video", "video": media.video(part.video_url.url, processor)}
