"""What a request says of latents, and its conversation in the form that the prompt encoder takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from transformers import ProcessorMixin

from storm_hf.errors import RequestError
from storm_hf.evaluation.replacement import Replacement
from storm_hf.serving.media import MediaDoor


Messages = list[dict[str, Any]]
LATENTS = ("own", *get_args(Replacement), "none", "swap", "alone")


@dataclass(frozen=True)
class LatentWish:
    """How a request wants the model to think.

    Args:
        num_latents (`int`):
            Number K of latent steps; 0 answers at once.
        latents (`str`, *optional*, defaults to `"own"`):
            `"own"`; `"zero"`, `"noise"` or `"mean"` in the place of its own (see
            [`~storm_hf.evaluation.replacement.replace_latents`]); `"swap"` feeds those of another conversation; `"alone"`
            answers from its own without the clip.
        donor (`list[dict]`, *optional*):
            The other conversation.
    """

    num_latents: int
    latents: str = "own"
    donor: Messages | None = None


def read_wish(body: Mapping[str, Any], *, default: int, most: int) -> LatentWish:
    """Read the three fields that this server adds to a request: `num_latents`, `latents` and `donor_messages`.

    Args:
        body (`Mapping`):
            The request.
        default (`int`):
            The model's number of latents.
        most (`int`):
            The most it can think.

    Raises:
        RequestError: If one has another form than expected, or they do not fit together.
    """
    num_latents = body.get("num_latents")
    latents, donor = body.get("latents", "own"), body.get("donor_messages")
    num_latents = default if num_latents is None else num_latents
    if isinstance(num_latents, bool) or not isinstance(num_latents, int) or not 0 <= num_latents <= most:
        raise RequestError(f"Expected `num_latents` between 0 and {most} but got {num_latents!r}.", status=422)
    if latents not in LATENTS:
        raise RequestError(f"Expected `latents` to be one of {', '.join(LATENTS)} but got {latents!r}.", status=422)
    if (latents == "swap") != (donor is not None):
        raise RequestError(
            'Expected `donor_messages` with `latents` "swap" and only then: the conversation whose latents are fed.',
            status=422,
        )
    if latents not in ("own", "none") and num_latents == 0:
        raise RequestError(f"`latents` cannot be {latents!r} with `num_latents` 0: there are none.", status=422)
    return LatentWish(0 if latents == "none" else num_latents, latents, donor)


def read_messages(messages: Any, processor: ProcessorMixin, door: MediaDoor) -> Messages:
    """Turn a conversation of the OpenAI form into one with decoded pictures and videos.

    Args:
        messages (`list[dict]`):
            Each with a `role` and a `content`: text, or parts of type `text`, `image_url` and `video_url`.
        processor ([`~transformers.ProcessorMixin`]):
            Says how videos are sampled.
        door ([`MediaDoor`]):
            Says what may come in.

    Raises:
        RequestError: If a message or a part has another form, or may not come in.
        VideoReadError: If there is no picture to be had from a video.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError(
            f"Expected `messages` to be a list of at least one message but got {messages!r}.", status=422
        )
    decoded = [_message(message, processor, door) for message in messages]
    if decoded[-1]["role"] != "user":
        raise RequestError(
            f"Expected the last message to be the user's but it is of {decoded[-1]['role']!r}.", status=422
        )
    return decoded


def _message(message: Any, processor: ProcessorMixin, door: MediaDoor) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError("Expected each message to have a `role` and a `content`.", status=422)
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise RequestError(
            f"Expected `content` to be text or a list of parts but got {type(content).__name__}.", status=422
        )
    return {"role": message["role"], "content": [_part(part, processor, door) for part in content]}


def _part(part: Any, processor: ProcessorMixin, door: MediaDoor) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], dict[str, Any]]] = {
        "text": lambda text: {"type": "text", "text": text},
        "image_url": lambda url: {"type": "image", "image": door.image(url)},
        "video_url": lambda url: {"type": "video", "video": door.video(url, processor)},
    }
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in kinds:
        raise RequestError(f"Expected a part of type {', '.join(kinds)} but got {kind!r}.", status=422)
    value = part.get(kind)
    value = value.get("url") if isinstance(value, dict) else value
    if not isinstance(value, str):
        raise RequestError(f"Expected `{kind}` to hold text but got {type(value).__name__}.", status=422)
    return kinds[kind](value)
