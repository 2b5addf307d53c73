"""Rows of every published form, read as one conversation and one answer. Nothing is decoded here.

    {"video", "question", "options", "answer"}        a row of a storm-thoughts data set
    {"prompt", "completion"}                          TRL's prompt-completion form: messages, or plain text
    {"messages"}                                      TRL's conversational form: the last message is the answer
    "videos", "images", "video", "image"              what fills placeholders of a prompt, or stands before its text
    "tools", "chat_template_kwargs"                   arguments of the chat template

A row of another form is a `DatasetError`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.inputs.wording import QuestionStyle, format_answer, format_question


Row = Mapping[str, Any]
Message = dict[str, Any]
Part = dict[str, Any]

_MEDIA = ("video", "image")
_SAMPLING = {name: name for name in ("fps", "num_frames", "min_frames", "max_frames")} | {
    "nframes": "num_frames",
    "sample_fps": "fps",
}
_NOT_OF_A_ROW = (
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "resized_height",
    "resized_width",
    "video_start",
    "video_end",
)
_SET_BY_THE_RUN = (
    *("num_latents", "tokenize", "add_generation_prompt", "continue_final_message", "return_dict", "return_tensors"),
    *("chat_template", "processor_kwargs", "sanitize_control_tokens", "tools", "conversation", "conversations"),
    *("messages", "text", "images", "videos", "audio", "return_assistant_tokens_mask", "load_audio_from_video"),
)


@contextmanager
def naming_row(row: Row, position: int) -> Iterator[None]:
    """Name the row in what its reading raises.

    Args:
        row (`Mapping`):
            The row.
        position (`int`):
            Its position in the batch or the data set.
    """
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{row_name(row, position)}: {error}") from error
    except VideoReadError as error:
        raise VideoReadError(f"{row_name(row, position)}: {error}", error.timeout_seconds) from error


def row_name(row: Row, position: int) -> str:
    """Name a row in a message: by its `id`, or by its position where it has none."""
    return f"The row {row['id']!r}" if row.get("id") is not None else f"Row {position} of the batch"


def read_messages(row: Row, style: QuestionStyle) -> list[Message]:
    """The conversation up to the answer, every content a list of parts of the types text, image and video.

    Args:
        row (`Mapping`):
            A row of any form; see this module.
        style (`str`):
            Form of the options in a question; see `format_question`.

    Raises:
        DatasetError: If the row has another form, or its numbers of placeholders and of videos or images differ.
    """
    if is_filled(row, "prompt"):
        return _with_media(_asked(_messages(row["prompt"], "prompt"), "prompt"), row)
    if is_filled(row, "question") and _column(row, "video"):
        return _with_media([_user(_question(row, style))], row, is_text_plain=True)
    if is_filled(row, "messages"):
        messages = _messages(row["messages"], "messages")
        if not messages or messages[-1]["role"] != "assistant":
            raise DatasetError(
                "Expected `messages` that end in the assistant's answer. Put prompts without one in `prompt`."
            )
        return _with_media(_asked(messages[:-1], "messages"), row)
    raise DatasetError(
        f"Expected a row with `prompt`, with `messages`, or with `video` and `question`; got the columns {sorted(row)}. See "
        "`storm_hf.target_trajectory.schema` for the form of a storm-thoughts row."
    )


def _asked(messages: list[Message], name: str) -> list[Message]:
    """Refuse a conversation in which nothing is asked."""
    if not messages:
        raise DatasetError(
            f"Expected `{name}` with a message before the answer, got none. Leave the row out, or fill it."
        )
    return messages


def read_answer(row: Row, style: QuestionStyle) -> str:
    """The text that the assistant should answer.

    Raises:
        DatasetError: If there is none, it is empty, more than one message, or none of the row's options.
    """
    answer = _answer(row, style)
    if not answer.strip():
        raise DatasetError("Expected an answer to train on, got an empty text. Leave the row out, or fill it.")
    return answer


def _answer(row: Row, style: QuestionStyle) -> str:
    if is_filled(row, "completion"):
        return _completion(row["completion"])
    if is_filled(row, "messages") and not is_filled(row, "answer") and not is_filled(row, "question"):
        return _completion(_messages(row["messages"], "messages")[-1:])
    answer, options = as_text(row.get("answer"), "answer"), read_options(row)
    if not options:
        return answer
    if style == "letters":
        return format_answer(answer, options, style)
    if style == "words":
        _check_ends_in_option(answer, options)
    return answer


def read_options(row: Row) -> list[str]:
    """The closed set of answers; empty where the question is open.

    Raises:
        DatasetError: If they are no list of texts.
    """
    return _texts(row, "options")


def read_choices(row: Row) -> list[str]:
    """Read the closed set of answers of a complete question, in its order; empty where none is known.

    Raises:
        DatasetError: If they are no list of texts.
    """
    return _texts(row, "choices")


def _texts(row: Row, name: str) -> list[str]:
    if not is_filled(row, name):
        return []
    texts = row[name]
    if isinstance(texts, str | bytes | Mapping) or not hasattr(texts, "__len__"):
        raise DatasetError(
            f"Expected `{name}` to be a list of texts, got {type(texts).__name__}: {str(texts)[:60]}. Make it a list."
        )
    return [as_text(text, name) for text in texts]


def is_filled(row: Row, name: str) -> bool:
    """Check that a column of a row is neither None nor NaN, which tables write into empty cells."""
    value = row.get(name)
    return value is not None and not (isinstance(value, float) and value != value)


def template_arguments(row: Row) -> dict[str, Any]:
    """Read the arguments of a row for its chat template: `tools`, and the variables of `chat_template_kwargs`.

    Raises:
        DatasetError: If it sets what the run decides, or one of the two is something else.
    """
    arguments = _without_none(_structure(row, "chat_template_kwargs", dict))
    if taken := sorted(set(arguments) & set(_SET_BY_THE_RUN)):
        raise DatasetError(f"`chat_template_kwargs` sets {', '.join(taken)}, which the run decides. Leave it out.")
    tools = _structure(row, "tools", list)
    return {**arguments, "tools": _without_none(tools)} if tools else arguments


def _structure(row: Row, name: str, kind: type) -> Any:
    """A column that holds a dict or a list, or its JSON, as tables without such a type store it; empty where it is not filled."""
    value = row[name] if is_filled(row, name) else None
    try:
        value = json.loads(value) if isinstance(value, str) and value else value
        return kind(value) if value is not None and len(value) else kind()
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"Expected `{name}` to be a {kind.__name__} or its JSON, got {str(value)[:60]!r}. Correct it, or leave it out."
        ) from error


def own_sampling(part: Part) -> dict[str, Any]:
    """Read the frame sampling that a video part sets itself."""
    return {name: part[name] for name in _SAMPLING.values() if name in part}


def _sampling_value(name: str, value: Any) -> float:
    """Read a rate or a number of frames of a part; a whole number that a table made 4.0 is 4."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    is_rate = _SAMPLING[name] == "fps"
    is_positive = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    if is_positive and (is_rate or value == int(value)):
        return float(value) if is_rate else int(value)
    raise DatasetError(
        f"Expected `{name}` of a video to be a {'number' if is_rate else 'whole number'} above 0, got {value!r}. Correct it, "
        "or leave it out."
    )


def _without_none(value: object) -> Any:
    """Leave out what is None in mappings: Arrow gives every one all keys that any has, and pandas its lists as arrays."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value


def _question(row: Row, style: QuestionStyle) -> str:
    text, options = as_text(row["question"], "question"), read_options(row)
    return format_question(text, options, style) if options else text


def as_text(value: object, name: str) -> str:
    """A text, or a number as one; a whole number that a table with empty cells made 3.0 is 3."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(value, str):
        return _whole_characters(value, name)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    raise DatasetError(f"Expected text or a number in `{name}`, got {value!r}. Leave the row out, or fill it.")


def _whole_characters(text: str, name: str) -> str:
    """Refuse half of a surrogate pair, which JSON can escape and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"Expected text of Unicode in `{name}`, got half of a surrogate pair at character {error.start}: "
            f"{text[max(0, error.start - 20) : error.end]!a}. Correct it, or leave the row out."
        ) from error
    return text


def _check_ends_in_option(answer: str, options: Sequence[str]) -> None:
    """Make sure that the answer, after any reasoning, is one of the options that the question names."""
    said = answer.replace(".", " ").casefold().split()
    named = (option.replace(".", " ").casefold().split() for option in options)
    if not any(words and said[-len(words) :] == words for words in named):
        raise DatasetError(
            f"The answer {answer!r} is none of the options {', '.join(options)}. Correct one of the two."
        )


def _completion(completion: object) -> str:
    """The text of one assistant message, given as such or as text."""
    if isinstance(completion, str) and _from_json(completion) is None:
        return as_text(completion, "completion")
    messages = _messages(completion, "completion")
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages) or "none"
        raise DatasetError(
            f"Expected one assistant message to train on, got {len(messages)} ({roles}). Move all before the last answer into "
            "`prompt`, and make a row of each answer."
        )
    parts = messages[0]["content"]
    if messages[0].get("tool_calls") or not parts or any(part["type"] != "text" for part in parts):
        kinds = ", ".join(
            sorted({part["type"] for part in parts} | ({"tool calls"} if "tool_calls" in messages[0] else set()))
        )
        raise DatasetError(f"Expected an answer of text, got {kinds or 'an empty message'}. Write it as text.")
    return "".join(part["text"] for part in parts)


def _messages(messages: Any, name: str) -> list[Message]:
    if isinstance(messages, str):
        written = _from_json(messages)
        if written is None:
            return [_user(as_text(messages, name))]
        messages = written
    if not isinstance(messages, Sequence) and not hasattr(messages, "shape"):
        raise DatasetError(f"Expected `{name}` to be messages or text, got {type(messages).__name__}.")
    return [_message(message, name) for message in messages]


def _from_json(text: str) -> list[Any] | None:
    """Messages that a table without such a type stores as their JSON; None if it is the text of a user."""
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        return None
    is_conversation = isinstance(found, list) and any(isinstance(each, dict) and "role" in each for each in found)
    return found if is_conversation else None


def _user(text: str) -> Message:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _message(message: object, name: str) -> Message:
    message = _without_none(message)
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise DatasetError(
            f"Expected each message of `{name}` to have a `role` and a `content`, got {str(message)[:80]}."
        )
    content = message.get("content", [] if message.get("tool_calls") else None)
    if content is None:
        raise DatasetError(f"Expected each message of `{name}` to have a `content`, got one without.")
    parts = [content] if isinstance(content, str | Mapping) else content
    if not isinstance(parts, Sequence | np.ndarray):
        raise DatasetError(f"Expected the `content` of a message to be text or a list of parts, got {content!r}.")
    return {**message, "content": [_part(part) for part in parts]}


def _part(part: object) -> Part:
    """One part as a chat template takes it, with a video's own sampling; a placeholder has no video or picture yet."""
    if isinstance(part, str):
        return {"type": "text", "text": as_text(part, "content")}
    if not isinstance(part, Mapping):
        raise DatasetError(f"Expected a part of a message to be text or a mapping, got {type(part).__name__}.")
    kind = part.get("type") or next(
        (name for name in (*_MEDIA, "video_url", "image_url", "text") if name in part), None
    )
    if kind == "text":
        return {"type": "text", "text": as_text(part.get("text"), "text")}
    medium = str(kind).removesuffix("_url")
    if medium not in _MEDIA:
        raise DatasetError(f"Expected parts of type text, image or video, got {kind!r}. Leave it out.")
    if refused := [name for name in _NOT_OF_A_ROW if name in part]:
        raise DatasetError(
            f"A {medium} part sets {', '.join(refused)}, which is not read from a row. Set `size` of the processor's "
            f"{medium} processor, or cut the video, and leave it out."
        )
    names = (medium, f"{medium}_url", "url", "path", "bytes")
    found: Part = {"type": medium}
    if (name := next((name for name in names if name in part), None)) is not None:
        found[medium] = {"bytes": part["bytes"], "path": part.get("path")} if "bytes" in part else part[name]
    own = [name for name in part if name in _SAMPLING and medium == "video"]
    return found | {_SAMPLING[name]: _sampling_value(name, part[name]) for name in own}


def _with_media(messages: list[Message], row: Row, is_text_plain: bool = False) -> list[Message]:
    """Give every placeholder the video or picture that the row's columns hold for it."""
    for medium in _MEDIA:
        messages = _with_medium(messages, medium, _column(row, medium), is_text_plain)
    return messages


def _with_medium(messages: list[Message], medium: str, given: list[Any] | None, is_text_plain: bool) -> list[Message]:
    parts = [part for message in messages for part in message["content"] if part["type"] == medium]
    if given is not None and not parts:
        messages = _with_placeholders(messages, medium, len(given), is_text_plain)
        parts = [part for message in messages for part in message["content"] if part["type"] == medium]
    empty = [part for part in parts if medium not in part]
    if not empty and (given is None or len(given) == len(parts)):
        return messages
    if len(empty) != len(given or ()):
        raise DatasetError(
            f"Expected as many {medium}s as placeholders of one, got {len(given or ())} in the columns `{medium}s` or "
            f"`{medium}` for {len(empty) or len(parts)} in the messages. Make them agree."
        )
    sources = iter(given or ())
    return [
        {
            **message,
            "content": [
                {**part, medium: next(sources)} if part["type"] == medium and medium not in part else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def _with_placeholders(messages: list[Message], medium: str, count: int, is_text_plain: bool) -> list[Message]:
    """Placeholders where the text has `<video>` or `<image>`; without any, before the first text of the user."""
    split = [
        {**message, "content": [part for whole in message["content"] for part in _split(whole, medium)]}
        for message in messages
    ]
    if not is_text_plain and any(part["type"] == medium for message in split for part in message["content"]):
        return split
    first = next((message for message in messages if message["role"] == "user"), None)
    if first is None:
        raise DatasetError(f"Expected a message of the user for the {medium}s of the row, got none.")
    added = [{"type": medium} for _ in range(count)]
    return [{**each, "content": [*added, *each["content"]]} if each is first else each for each in messages]


def _split(part: Part, medium: str) -> list[Part]:
    if part["type"] != "text" or f"<{medium}>" not in part["text"]:
        return [part]
    texts = part["text"].split(f"<{medium}>")
    parts: list[Part] = [{"type": "text", "text": texts[0]}]
    for text in texts[1:]:
        parts += [{"type": medium}, {"type": "text", "text": text}]
    return [each for each in parts if each["type"] == medium or each["text"].strip()]


def _column(row: Row, medium: str) -> list[Any] | None:
    """Read the columns of a medium; None where there are none."""
    several = row[f"{medium}s"] if is_filled(row, f"{medium}s") else None
    is_one = isinstance(several, str | bytes | bytearray | memoryview | Mapping) or not hasattr(several, "__iter__")
    given = None if several is None else [several] if is_one else list(several)
    if not is_filled(row, medium):
        return given
    if given:
        raise DatasetError(f"Expected `{medium}s` or `{medium}`, got both. Leave one of the two columns out.")
    return [row[medium]]
