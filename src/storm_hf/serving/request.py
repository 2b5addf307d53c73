"""Typed chat-completion request: every field is honoured or refused by name.

`DONE` fields are those of [`ChatCompletionRequest`]. `UNDONE` lists the other fields of OpenAI's API and of `transformers serve`,
with the values that ask for nothing and are therefore taken.
"""

import json
import re
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from storm_hf.errors import ConfigurationError, RequestError
from storm_hf.interventions.kind import OF_ONE_QUESTION, InterventionKind, read_kind


INTERVENTIONS = (InterventionKind.own, *OF_ONE_QUESTION, InterventionKind.donor)

_MAX_CHOICES = 8
_MAX_STOPS = 4
_MAX_STOP_CHARACTERS = 256
_MAX_BIASES = 1024
_MAX_MESSAGES = 1024
MAX_FILES = 64
MAX_CHARACTERS = 2_000_000
_SHOWN = 60
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

# Fields that nothing is done for, each with the values that ask for nothing.
UNDONE: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "generation_config": (),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
_UNDONE_OF_MESSAGES: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "reasoning_content": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}


class _Part(BaseModel):
    """JSON object of a request: exact types, no unknown fields; null is the same as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    undone: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_requests_for_nothing(cls, given: object) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None and not any(_is_same(value, idle) for idle in cls.undone.get(name, ()))
        }


def _is_same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other  # False is not 0


def _as_url(value: object) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _as_parts(value: object) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _as_list(value: object) -> Any:
    return [value] if isinstance(value, str) else value


def _as_kind(value: object) -> InterventionKind:
    try:
        return read_kind(value, INTERVENTIONS)
    except ConfigurationError as error:
        raise ValueError(str(error).rstrip(".")) from error


class MediaUrl(_Part):
    """Address of a picture or a video."""

    undone: ClassVar = {"detail": ("auto",)}

    url: str


class TextPart(_Part):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImagePart(_Part):
    """Picture of a message."""

    type: Literal["image_url"]
    image_url: Annotated[MediaUrl, BeforeValidator(_as_url)]


class VideoPart(_Part):
    """Video of a message."""

    type: Literal["video_url"]
    video_url: Annotated[MediaUrl, BeforeValidator(_as_url)]


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(_Part):
    """Message of a conversation; `content` is text or a list of parts."""

    undone: ClassVar = _UNDONE_OF_MESSAGES

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], BeforeValidator(_as_parts)]


def _ends_with_user(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "user":
        raise ValueError(f"the last message must be the user's, not one of role {messages[-1].role!r}")
    return messages


Messages = Annotated[list[Message], Field(min_length=1, max_length=_MAX_MESSAGES)]


class StreamOptions(_Part):
    """Options of a streamed answer."""

    undone: ClassVar = {"include_obfuscation": (False,)}

    include_usage: bool = False


class ChatCompletionRequest(_Part):
    """Fields of a chat completion that are done.

    `user` only names the client and has no effect, as in OpenAI's API. `docs/serve.md` has the table of all fields.
    """

    undone: ClassVar = UNDONE

    messages: Messages
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1, le=_MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=_MAX_STOP_CHARACTERS)]], BeforeValidator(_as_list)
    ] = Field(default_factory=list, max_length=_MAX_STOPS)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default_factory=dict, max_length=_MAX_BIASES
    )
    stream: bool = False
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict[str, bool] = Field(default_factory=dict)
    user: str | None = None

    num_latents: int | None = None
    latents: Annotated[InterventionKind, BeforeValidator(_as_kind)] = InterventionKind.own
    donor_messages: Messages | None = None

    @field_validator("messages", "donor_messages")
    @classmethod
    def _check_last_message(cls, messages: list[Message] | None) -> list[Message] | None:
        return messages and _ends_with_user(messages)

    @field_validator("logit_bias")
    @classmethod
    def _check_token_ids(cls, biases: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name in biases if not (name.isascii() and name.isdecimal() and len(name) < 10)]:
            raise ValueError(f"the keys must be token ids, not {_shown(wrong[0])}")
        return biases

    @model_validator(mode="after")
    def _check_fields_together(self) -> Self:
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ValueError("`max_tokens` and `max_completion_tokens` differ: give one of them")
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` goes with `stream: true` only")
        if self.top_p not in (None, 1) and self.temperature is None:
            raise ValueError("`top_p` needs a `temperature`: without one, answers are greedy")
        if (self.latents == InterventionKind.donor) != (self.donor_messages is not None):
            raise ValueError('`donor_messages`, whose latents are fed, goes with `latents` "donor" and only with it')
        return self

    @property
    def token_limit(self) -> int | None:
        """Longest answer that is asked for, in tokens."""
        return self.max_completion_tokens or self.max_tokens


def parse_request(body: bytes) -> ChatCompletionRequest:
    """Read the body of a chat completion.

    Args:
        body (`bytes`):
            JSON.

    Raises:
        RequestError: If it is no JSON object, if a field has another form than expected, or if nothing is done for one. `param`
            is the name of the field.
    """
    try:
        given = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"Expected a JSON object with `messages` but the body is no JSON: {error}.", 422) from error
    if not isinstance(given, dict):
        raise RequestError(f"Expected a JSON object with `messages` but got {_shown(given)}.", 422)
    if _SURROGATE.search(body):
        _check_encodable(given)
    try:
        request = ChatCompletionRequest.model_validate(given)
    except ValidationError as error:
        _raise_first(error)
    for name, messages in (("messages", request.messages), ("donor_messages", request.donor_messages)):
        _check_size(name, messages or [])
    return request


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check_encodable(given: dict[str, Any]) -> None:
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RequestError("Expected text of Unicode but the request holds half of a surrogate pair.", 422) from error


def _check_size(name: str, messages: list[Message]) -> None:
    parts = [part for message in messages for part in message.content]
    num_characters = sum(len(part.text) for part in parts if isinstance(part, TextPart))
    num_files = sum(not isinstance(part, TextPart) for part in parts)
    for count, most, what in ((num_characters, MAX_CHARACTERS, "characters"), (num_files, MAX_FILES, "files")):
        if count > most:
            raise RequestError(
                f"Expected `{name}` with at most {most:,} {what} but got {count:,}. Send less.", 413, param=name
            )


def _raise_first(error: ValidationError) -> NoReturn:
    """Raise the first error of pydantic in this package's form."""
    first = error.errors(include_url=False)[0]
    path = _path(first["loc"])
    field = str(first["loc"][-1]) if first["loc"] else None
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        undone = UNDONE if len(first["loc"]) == 1 else {**_UNDONE_OF_MESSAGES, "detail": (), "include_obfuscation": ()}
        if field in undone:
            message = f"This server does not do `{path}`{_taken(undone[str(field)])}. Leave it out."
        else:
            message = f"There is no field `{path[:_SHOWN]}`. Leave it out."
    elif first["type"] == "missing":
        message = f"Expected `{path}` but the request has none."
    elif first["type"] == "value_error":
        message = f"{f'`{path}`: ' if path else ''}{first['msg'].removeprefix('Value error, ')}."
    else:
        message = f"`{path}`: {first['msg']}, but got {_shown(first['input'])}."
    raise RequestError(message, 422, param=param or _named(message)) from error


def _taken(values: tuple[Any, ...]) -> str:
    shown = " or ".join(json.dumps(value) for value in values)
    return f" beyond {shown}" if shown else ""


def _named(message: str) -> str | None:
    """Name of the field that a message begins with."""
    return message.split("`")[1] if message.startswith("`") else None


def _path(loc: tuple[int | str, ...]) -> str:
    """Path of a field, without the names that pydantic gives the branches of a union."""
    path = ""
    for before, item in zip((None, *loc), loc, strict=False):
        if isinstance(item, int):
            path += f"[{item}]"
        elif not (isinstance(before, int) and path.rpartition(".")[2].startswith("content[")):
            path += f".{item}" if path else item
    return path


def _shown(value: object) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
