"""Prompts for a generator, written by a template or by a chat model."""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from string import Formatter
from typing import Protocol

from storm_hf.annotations.record import Annotation
from storm_hf.atomic import read_json, write_json
from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.llm import ChatModel, Message
from storm_hf.thought_video.clip_part import read_seen


_DEFAULT_TEMPLATE = "{question} The video goes on and shows step by step why the answer is: {answer}."
_DEFAULT_REQUEST = (
    "These are frames of a video, in order.\nQuestion about it: {question}\nOptions: {options}\nRight answer: {answer}\n\n"
    "Write a prompt of at most 120 words for an image-to-video model that starts from the last frame. It describes, in the "
    "present tense and in the order of time, only what can be seen: which things move, where to, and how this shows that "
    "the answer is right. No text or letters appear in the picture, the camera does not cut, nothing that is not in the "
    "frames comes in without a reason. Reply with the prompt alone."
)

_FIELDS = ("id", "question", "options", "answer", "source", "time_seconds", "start_seconds", "end_seconds")


class PromptWriter(Protocol):
    """Writer of prompts: from a question and its answer to the prompt of a generator."""

    @property
    def name(self) -> str:
        """Name of the writer: `template`, or that of a model."""
        ...

    @property
    def shows_answer(self) -> bool:
        """True if the answer goes into the prompt. A control is written without."""
        ...

    def write(self, annotation: Annotation) -> str:
        """Write the prompt of a question; never an empty one.

        Raises:
            DatasetError: If there is none for this question. The others are not concerned.
            VideoReadError: If its clip cannot be read.
        """
        ...


@dataclass(frozen=True)
class TemplatePrompt:
    """Fills the fields of an annotation into a text.

    Args:
        template (`str`, *optional*):
            With fields in braces, as in `"{question} The answer is {answer}."`. `{options}` becomes `A. red; B. green`. The
            default shows question and answer.

    Raises:
        ConfigurationError: If a field is none of an annotation, or the template has no field at all.
    """

    template: str = _DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        fields = _fields_of(self.template)
        if unknown := sorted(fields - set(_FIELDS)):
            raise ConfigurationError(
                f"Expected fields among {', '.join(_FIELDS)} but the template has {', '.join(unknown)}. Double the braces that "
                "are text."
            )
        if not fields:
            raise ConfigurationError(f"Expected a template with fields in braces but got {self.template!r}.")

    @property
    def name(self) -> str:
        """`template`."""
        return "template"

    @property
    def shows_answer(self) -> bool:
        """True if `{answer}` is one of the fields."""
        return "answer" in _fields_of(self.template)

    def write(self, annotation: Annotation) -> str:
        """Fill in the fields. What an annotation does not have becomes nothing.

        Raises:
            DatasetError: If nothing is left, or a number that the template formats is not there.
        """
        values = {name: getattr(annotation, name) for name in _FIELDS}
        values["options"] = "; ".join(f"{chr(65 + i)}. {text}" for i, text in enumerate(annotation.options))
        known = {name: "" if value is None else value for name, value in values.items()}
        try:
            filled = self.template.format(**known)
        except (ValueError, TypeError) as error:  # a number's format for a number that is not there
            raise DatasetError(
                f"The template {self.template!r} does not fit the question {annotation.id!r}: {error}."
            ) from error
        return _not_empty(filled, annotation, "the template")


@dataclass(frozen=True)
class ChatPrompt:
    """Asks a chat model for the prompt, showing it frames of the clip.

    Args:
        model ([`ChatModel`]):
            [`ServedChat`] or [`PipelineChat`].
        cache (`Path`):
            A folder. Each answer is kept there under the hash of model, settings and messages, so that a stopped run asks
            nothing twice and the same question gets the same prompt.
        request ([`TemplatePrompt`], *optional*):
            Request to the model.
        num_key_frames (`int`, *optional*, defaults to `0`):
            Frames shown, evenly over what the question may see, the last one included. The model must take images.
    """

    model: ChatModel
    cache: Path
    request: TemplatePrompt = field(default_factory=lambda: TemplatePrompt(_DEFAULT_REQUEST))
    num_key_frames: int = 0

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @property
    def shows_answer(self) -> bool:
        """True if the answer is part of the request."""
        return self.request.shows_answer

    def write(self, annotation: Annotation) -> str:
        """Ask the model, or take its cached answer.

        Raises:
            DatasetError: If it says nothing, or is cut off. That is not kept.
            ServerError: If it cannot be reached.
            VideoReadError: If the clip cannot be read.
        """
        message = self._message(annotation)
        path = Path(self.cache) / f"{self._hash(message)}.json"
        if not path.exists():
            prompt = _not_empty(self.model.complete([message]), annotation, f"the model {self.name}")
            content = {
                "model": self.name,
                "revision": self.model.version,
                "settings": dict(self.model.settings),
                "request": message.text,
                "prompt": prompt,
            }
            write_json(path, content)
        return str(read_json(path)["prompt"])

    def _message(self, annotation: Annotation) -> Message:
        if not self.num_key_frames:
            return Message(self.request.write(annotation))
        return Message(self.request.write(annotation), tuple(read_seen(annotation, self.num_key_frames)))

    def _hash(self, message: Message) -> str:
        asked = {"model": self.name, "settings": dict(self.model.settings), "text": message.text}
        digest = sha256(json.dumps(asked, sort_keys=True).encode())
        for image in message.images:
            digest.update(str(image.shape).encode() + image.tobytes())
        return digest.hexdigest()


def _fields_of(template: str) -> set[str]:
    try:
        return {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigurationError(f"Expected a template with paired braces but got {template!r}: {error}.") from error


def _not_empty(text: str, annotation: Annotation, writer: str) -> str:
    if not text.strip():
        raise DatasetError(f"Expected a prompt for the question {annotation.id!r} but {writer} gave an empty one.")
    return text.strip()
