"""A chat model behind a server that speaks OpenAI's protocol, asked by OpenAI's own client."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from storm_hf.chat.message import Message, small_image, without_thinking
from storm_hf.errors import ConfigurationError, DatasetError, ServerError
from storm_hf.optional import require


if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

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
            MissingExtraError: If the package `openai` is not installed.
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
            said = without_thinking(text)
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

    def _strange(self, answer: Any) -> ServerError:
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
    small_image(pixels).save(file, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
