"""Bodies of responses in the form of OpenAI's API."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from storm_hf.errors import RequestError
from storm_hf.serving.chat import Choice


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Completion:
    """Fields that all replies to one request share.

    Args:
        request_id (`str`):
            Id of the request.
        model (`str`):
            Name of the model.
        num_prompt_tokens (`int`):
            Length of the prompt.
        has_usage (`bool`, *optional*, defaults to `False`):
            Whether a stream ends with a chunk of counts.
        created (`int`, *optional*):
            Time of the request, in seconds since 1970.
    """

    request_id: str
    model: str
    num_prompt_tokens: int
    has_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def complete(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Body of an answer that is not streamed."""
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": choice.finish_reason,
                    **_thought(choice),
                }
                for index, choice in enumerate(choices)
            ],
            "usage": self._usage(choices),
        }

    def chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None, **others: int) -> bytes:
        """Event of a stream that carries a piece of one choice."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **others}
        usage = {"usage": None} if self.has_usage else {}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **usage})

    def ends(self, choices: Sequence[Choice]) -> bytes:
        """Last events of a stream."""
        ends = [
            self.chunk(index, {}, choice.finish_reason, **_thought(choice)) for index, choice in enumerate(choices)
        ]
        if self.has_usage:
            ends.append(event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage(choices)}))
        return b"".join([*ends, DONE])

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.request_id}", "object": kind, "created": self.created, "model": self.model}

    def _usage(self, choices: Sequence[Choice]) -> dict[str, int]:
        num_tokens = sum(choice.num_tokens for choice in choices)
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": num_tokens,
            "total_tokens": self.num_prompt_tokens + num_tokens,
        }


def _thought(choice: Choice) -> dict[str, int]:
    """Length of the thought before a choice, of a model that halts."""
    return {} if choice.num_latents is None else {"num_latents": choice.num_latents}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Body of a refusal or a failure."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": _CODES.get(status)}}


def as_reply(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body of an error; nothing but the class of an unexpected one is shown."""
    if isinstance(error, RequestError):
        return error.status, error_body(error.status, str(error), error.param)
    return 500, error_body(500, f"The server failed with {type(error).__name__}; its log says more. Try again later.")


def event(body: dict[str, Any]) -> bytes:
    """Server-sent event."""
    return b"data: " + encode(body) + b"\n\n"


def encode(body: dict[str, Any]) -> bytes:
    """JSON in ASCII: a lone surrogate of a request can be shown."""
    return json.dumps(body).encode()
