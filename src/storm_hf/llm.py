"""Chat models that write prompts and mark answers: in this process, or behind a server with the OpenAI protocol.

Axes: H height, W width of an image.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from storm_hf.errors import ConfigurationError, DatasetError, ServerError
from storm_hf.optional import require
from storm_hf.pipeline.workspace import folder_revision


if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

__all__ = ["ChatModel", "Message", "PipelineChat", "ServedChat"]

_MAX_IMAGE_SIDE_PX = 768  # what chat models look at in one tile; more only costs time


@dataclass(frozen=True, eq=False)
class Message:
    """User turn of a chat.

    Args:
        text (`str`):
            The words.
        images (`tuple[np.ndarray, ...]`, *optional*, defaults to `()`):
            Pictures shown before the words, each of shape `(height, width, 3)`, RGB, `uint8`.
    """

    text: str
    images: tuple[np.ndarray, ...] = ()


class ChatModel(Protocol):
    """Answers a conversation."""

    @property
    def name(self) -> str:
        """Its name, as recorded."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings that determine its answers besides its name, JSON-serializable."""
        ...

    @property
    def version(self) -> str | None:
        """Version of the model, as exactly as is known: a commit, or a hash of its files."""
        ...

    def complete(self, messages: Sequence[Message]) -> str:
        """Say what comes next, without its thinking. It may be empty.

        Raises:
            DatasetError: If the answer is cut off.
            ServerError: If there is none to be had.
        """
        ...


def _small_image(pixels: np.ndarray) -> Image.Image:
    """A picture, made smaller if it is larger than chat models look at."""
    image = Image.fromarray(pixels)
    image.thumbnail((_MAX_IMAGE_SIDE_PX, _MAX_IMAGE_SIDE_PX))
    return image


def _without_thinking(text: str) -> str:
    """Final answer of a completion, without its reasoning."""
    return text.rpartition("</think>")[2].strip()


@dataclass(frozen=True)
class PipelineChat:
    """A chat model in this process, through a pipeline of transformers. It answers greedily.

    Args:
        name (`str`):
            A model on the Hub, or its folder.
        revision (`str`, *optional*):
            Its commit or branch on the Hub.
        sees_images (`bool`, *optional*, defaults to `False`):
            Whether it takes pictures; then the task is `image-text-to-text`, else `text-generation`.
        max_tokens (`int`, *optional*, defaults to `512`):
            Longest answer.
        options (`Mapping[str, Any]`, *optional*):
            More for `transformers.pipeline`: `device`, `dtype`, `device_map`.
    """

    name: str
    revision: str | None = None
    sees_images: bool = False
    max_tokens: int = 512
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def version(self) -> str | None:
        """Commit of the model on the Hub; of a folder, twelve digits of the hash of all its files."""
        if Path(self.name).is_dir():
            return folder_revision(Path(self.name))
        return getattr(self._pipeline.model.config, "_commit_hash", None) or self.revision

    @property
    def settings(self) -> Mapping[str, Any]:
        """Revision and length."""
        return {"revision": self.revision, "max_tokens": self.max_tokens}

    def complete(self, messages: Sequence[Message]) -> str:
        """Ask the model.

        Raises:
            ConfigurationError: If it is shown pictures and `sees_images` is false.
        """
        if not self.sees_images and any(message.images for message in messages):
            raise ConfigurationError(f"Expected no pictures for {self.name} but got some. Pass sees_images=True.")
        chat = [{"role": "user", "content": self._content(message)} for message in messages]
        answer = self._pipeline(chat, return_full_text=False, **self._generation)
        return _without_thinking(answer[0]["generated_text"])

    @property
    def _generation(self) -> dict[str, Any]:
        """Greedy and short enough, as each of the two pipelines takes it."""
        arguments = {"max_new_tokens": self.max_tokens, "do_sample": False}
        return {"generate_kwargs": arguments} if self.sees_images else arguments

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        if not self.sees_images:
            return message.text
        images = [{"type": "image", "image": _small_image(image)} for image in message.images]
        return [*images, {"type": "text", "text": message.text}]

    @cached_property
    def _pipeline(self) -> Any:
        from transformers import pipeline  # here, since a server needs none of it

        task = "image-text-to-text" if self.sees_images else "text-generation"
        return pipeline(task, model=self.name, revision=self.revision, **self.options)


_PASSING_FAILURES = {408, 409, 429}  # and all from 500 on: what the client asks again about


@dataclass(frozen=True)
class ServedChat:
    """A chat model behind a server: vLLM, SGLang, llama.cpp, TGI, or a company's.

    Args:
        url (`str`):
            Base URL of its API, such as `http://localhost:8000/v1`.
        name (`str`):
            The model, as the server calls it.
        max_tokens (`int`, *optional*, defaults to `512`):
            Longest answer. A longer one is an error, never half a prompt.
        temperature (`float`, *optional*, defaults to `0.0`):
            Of sampling.
        seed (`int`, *optional*, defaults to `0`):
            Sent along; not every server looks at it.
        key_variable (`str`, *optional*, defaults to `"OPENAI_API_KEY"`):
            Environment variable that holds the key. Without it none is sent. The key itself is never recorded.
        timeout_seconds (`float`, *optional*, defaults to `120.0`):
            Time limit of one answer.
        retries (`int`, *optional*, defaults to `4`):
            Number of retries if the server is busy, broken or away. The wait doubles each time; what the server asks
            for goes first.

    Raises:
        ConfigurationError: If the URL is none of HTTP.
    """

    url: str
    name: str
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    key_variable: str = "OPENAI_API_KEY"
    timeout_seconds: float = 120.0
    retries: int = 4

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigurationError(f"Expected a URL that begins with http:// or https:// but got {self.url!r}.")

    @property
    def version(self) -> str | None:
        """None: a server does not report it."""
        return None

    @property
    def settings(self) -> Mapping[str, Any]:
        """Length, temperature and seed."""
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}

    @property
    def endpoint(self) -> str:
        """URL of chat completions."""
        return f"{self.url.rstrip('/')}/chat/completions"

    def complete(self, messages: Sequence[Message]) -> str:
        """Ask the server, again and more slowly while it is busy or away.

        Raises:
            DependencyError: If the package `openai` is not installed.
            DatasetError: If the answer is longer than `max_tokens`.
            ServerError: If the server cannot be reached, refuses, or answers something else; the message names its URL.
        """
        openai = require("openai")
        content: Any = [{"role": "user", "content": _content(message)} for message in messages]
        try:
            answer = self._client.chat.completions.create(
                model=self.name,
                messages=content,
                extra_headers=None if self._key else {"Authorization": openai.Omit()},
                **self.settings,
            )
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            raise self._silent(str(error.__cause__ or error)) from error
        except ValueError as error:  # of the body, which is no JSON although it says so
            raise self._strange(error) from error
        return self._text_of(answer)

    @cached_property
    def _client(self) -> "OpenAI":
        key = self._key or "none"  # the client needs one, even if it is not sent
        client: OpenAI = require("openai").OpenAI(
            base_url=self.url, api_key=key, timeout=self.timeout_seconds, max_retries=self.retries
        )
        return client

    @property
    def _key(self) -> str | None:
        return os.environ.get(self.key_variable)

    def _text_of(self, answer: Any) -> str:
        try:
            choice = answer.choices[0]
            text, reason = choice.message.content or "", choice.finish_reason
            said = _without_thinking(text)
        except (AttributeError, LookupError, TypeError) as error:
            raise self._strange(answer) from error
        if reason == "length":
            raise DatasetError(
                f"The answer of {self.endpoint} is cut off after {len(text)} characters. Raise max_tokens."
            )
        return said

    def _refused(self, error: "APIStatusError") -> ServerError:
        reason = f"{error.status_code} {error.response.text[:300]}".strip()
        if error.status_code in _PASSING_FAILURES or error.status_code >= 500:
            return self._silent(reason)
        return ServerError(f"{self.endpoint} refuses the model {self.name!r}: {reason}.")

    def _silent(self, reason: str) -> ServerError:
        return ServerError(
            f"{self.endpoint} gave no answer in {self.retries + 1} attempts ({reason}). Start the server, or correct the URL; "
            "what was answered before is kept."
        )

    def _strange(self, answer: object) -> ServerError:
        return ServerError(
            f"{self.endpoint} answers in another way than OpenAI's chat completions: {str(answer)[:200]!r}. Correct the URL."
        )


def _content(message: Message) -> str | list[dict[str, Any]]:
    """A message as OpenAI's protocol writes it."""
    if not message.images:
        return message.text
    images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images]
    return [*images, {"type": "text", "text": message.text}]


def _data_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    _small_image(pixels).save(file, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
