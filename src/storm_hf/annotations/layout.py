"""Layout of a collection: the mapping from the fields of a row to an annotation, as a small YAML file.

What cannot be used raises a [`DatasetError`]; its message is the reason that the row is rejected with.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import yaml

from storm_hf.annotations.record import EVIDENCE
from storm_hf.errors import ConfigurationError, DatasetError, one_line
from storm_hf.settings import NonEmptyStr, PositiveFloat, check_names, check_values, make_settings


AnswerForm = Literal["auto", "letter", "text", "index"]

PLACEHOLDER = re.compile(r"{([^{}]+)}")
_PICTURES = ("image", "images")  # where conversations keep them
_FIELDS = (
    "id",
    "video",
    "question",
    "options",
    "answer",
    "time_seconds",
    "start_seconds",
    "end_seconds",
    "license",
    *EVIDENCE,
)
EVIDENCE_OPTIONS = ("chain_tag", "key_frame_fps", "box_size")  # options of a layout that evidence is read by


@dataclass(frozen=True, kw_only=True)
class Join:
    """A second JSON file beside the annotations, with further fields of their rows.

    Args:
        file (`str`):
            Its name, in which `{stem}` is that of the annotations without its suffix: `gsub_{stem}.json` is `gsub_val.json`
            beside `val.csv`. It is a list of rows, or an object with a value for each row.
        by (`str`):
            The field that both share; in an object, the field whose values are its keys.
        name (`str`, *optional*, defaults to `""`):
            Name in the row of the value of an object.
        ending (`str`, *optional*, defaults to `""`):
            The end of the annotations' own name in whose place `file` stands: `_q.json` and `_a.json` make `val_a.json` of
            `val_q.json`. Annotations that end in another way are whole. Without an ending the file may be absent.
    """

    file: NonEmptyStr
    by: NonEmptyStr
    name: str = ""
    ending: str = ""

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Mapping from the fields of a row to an annotation.

    A field is named by its path in the row: `answer`, or `qa.answer`, or `videos.0`. A part of a path in braces is the value
    of that field: `grounding.location.{qid}`.

    Args:
        fields (`Mapping[str, tuple[str, ...]]`):
            From a field of [`Annotation`] to where a row keeps it. The first of several that is not empty is taken.
            Without an `id` a row is named by a hash of its content.
        source (`str`, *optional*, defaults to `""`):
            Name of the collection.
        license (`str`, *optional*, defaults to `"unknown"`):
            Licence of the rows that do not state one.
        rows (`str`, *optional*, defaults to `"data"`):
            The key of the list of rows, where a JSON file is an object.
        nested (`tuple[str, ...]`, *optional*, defaults to `()`):
            For a JSON file that is an object of objects with rows: the field that each level of keys is of a row, such as
            `[video_id, dim]`.
        join (`tuple[Join, ...]`, *optional*, defaults to `()`):
            Further files with fields of the rows; in a YAML file one [`Join`] or a list of them.
        keep (`Mapping[str, Any]`, *optional*):
            From fields to the value that they must have. Other rows are rejected.
        video_path (`str`, *optional*, defaults to `"{video}"`):
            Path of the clip under the root, with fields of the row in braces. `{video}` is the annotation's own.
        conversation (`str`, *optional*):
            The list of turns of a LLaVA-style row, instead of question and answer. Each question with its answer is an
            annotation of its own.
        option_fields (`tuple[str, ...]`, *optional*, defaults to `()`):
            A field for each option, instead of `options`.
        option_separator (`str`, *optional*, defaults to `"|"`):
            Separator between options that are one text.
        options_in_question (`bool`, *optional*, defaults to `False`):
            Whether the last lines of a question may be its options, with letters.
        instructions (`tuple[str, ...]`, *optional*, defaults to `()`):
            Sentences about the form of the answer, removed from the end of a question.
        answer_tag (`str`, *optional*):
            The tag that holds the answer: `answer` for `<answer>B</answer>`.
        answer_form (`str`, *optional*, defaults to `"auto"`):
            Form of the correct option: its `"letter"`, its `"text"`, its `"index"` from 0 (where options are a mapping
            of numbers, its number), or letter or text, where they do not contradict (`"auto"`).
        chain_tag (`str`, *optional*):
            The tag that holds the chain of thought: `think` for `<think>...</think>`. A row without it has no chain.
        key_frame_fps (`float`, *optional*):
            Numbers of key frames per second, where a row counts frames. Without it key frames are seconds.
        box_size (`tuple[str | int, str | int]`, *optional*):
            Width and height that the sides of boxes are measured in: a field of the row or a number each, such as
            `[width, height]` or `[1000, 1000]`. Without it they are shares, 0 to 1.

    Raises:
        ConfigurationError: If it says too little or too much to read a row.
    """

    fields: Mapping[str, tuple[str, ...]]
    source: str = ""
    license: str = "unknown"
    rows: str = "data"
    nested: tuple[str, ...] = ()
    join: tuple[Join, ...] = ()
    keep: Mapping[str, Any] = field(default_factory=dict)
    video_path: str = "{video}"
    conversation: str | None = None
    option_fields: tuple[str, ...] = ()
    option_separator: str = "|"
    options_in_question: bool = False
    instructions: tuple[str, ...] = ()
    answer_tag: str | None = None
    answer_form: AnswerForm = "auto"
    chain_tag: str | None = None
    key_frame_fps: PositiveFloat | None = None
    box_size: tuple[str | int, str | int] | None = None

    def __post_init__(self) -> None:
        check_values(self)
        check_names(self.fields, _FIELDS, "`fields`")
        needed = {"video"} if self.conversation else {"video", "question", "answer"}
        if missing := sorted(needed - set(self.fields)):
            raise ConfigurationError(f"Expected a layout that says where a row keeps its {', '.join(missing)}.")

    def columns(self, available: Iterable[str]) -> list[str]:
        """The columns of a table that this layout reads, so that the others, with their videos, stay unread."""
        paths = [path for paths in self.fields.values() for path in paths]
        paths += [*self.option_fields, *self.keep, *PLACEHOLDER.findall(self.video_path)]
        paths += [self.conversation, *_PICTURES] if self.conversation else []
        paths += [join.by for join in self.join]
        paths += [size for size in self.box_size or () if isinstance(size, str)]
        paths += [name for path in paths for name in PLACEHOLDER.findall(path)]
        wanted = {*paths, *(path.partition(".")[0] for path in paths)}
        return [name for name in available if name in wanted]


def known_layouts() -> list[str]:
    """Names of the layouts of this package."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def load_layout(name_or_path: str) -> Layout:
    """Load a layout of this package by its name, or one of your own by the path of its YAML file.

    Raises:
        ConfigurationError: If there is none, or it does not say how to read a row.
    """
    path = _folder().joinpath(f"{name_or_path}.yaml") if name_or_path in known_layouts() else Path(name_or_path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"Expected a layout of {', '.join(known_layouts())}, or the path of a YAML file, but got {name_or_path!r}."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The layout {name_or_path} is no valid YAML: {one_line(error)}.") from error
    try:
        return _layout_of(content)
    except ConfigurationError as error:
        raise ConfigurationError(f"The layout {name_or_path} cannot be used. {error}") from error


def _layout_of(content: object) -> Layout:
    if isinstance(content, Mapping) and isinstance(paths := content.get("fields"), Mapping):
        several = {name: path if isinstance(path, list) else [path] for name, path in paths.items()}
        content = {**content, "fields": several}
    if isinstance(content, Mapping) and not isinstance(join := content.get("join", []), list):
        content = {**content, "join": [join]}
    return make_settings(Layout, content, "the layout")


def _folder() -> Any:
    return files("storm_hf.annotations").joinpath("layouts")


_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")  # 1:02:03.5 or 02:03


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `qa.answer`, `videos.0` or `spans.{qid}`; None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        part = PLACEHOLDER.sub(lambda match: written(row.get(match[1])), part)
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def is_absent(value: object) -> bool:
    """Recognize an absent value: None, blank text, or the NaN of an empty table cell."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def first_of(row: Mapping[str, Any], paths: Iterable[str]) -> Any:
    """The first value that is there, or None."""
    return next((value for path in paths if not is_absent(value := look_up(row, path))), None)


def required(row: Mapping[str, Any], paths: Sequence[str], what: str) -> Any:
    """The first value that is there.

    Raises:
        DatasetError: If there is none, or only an empty one.
    """
    value = first_of(row, paths)
    if value is not None:
        return value
    if any(isinstance(look_up(row, path), str) for path in paths):
        raise DatasetError(f"The {what} is empty.")
    raise DatasetError(f"The row has no {' or '.join(map(repr, paths))}, which should be the {what}.")


def text_of(value: object, what: str) -> str:
    """Text, without blanks around it. Numbers are written out; see `written`.

    Raises:
        DatasetError: If it is a list or a mapping, blank, or text that was not UTF-8.
    """
    if not isinstance(value, (str, int, float)):
        raise DatasetError(f"The {what} should be text but is {shown(value)}.")
    text = written(value).strip()
    if not text:
        raise DatasetError(f"The {what} is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # the readers make lone surrogates of bytes that are no UTF-8
        raise DatasetError(f"The {what} is not valid UTF-8.") from error
    return text


def written(value: object) -> str:
    """Write a value of a row as text. A whole number that a table with empty cells made 3.0 is 3."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def optional_text(value: object, what: str) -> str | None:
    """Text, or None if the field is absent."""
    return None if is_absent(value) else text_of(value, what)


def seconds_of(value: object, what: str) -> float | None:
    """A time in seconds, from a number or from `1:02:03.5`; None if the field is absent.

    Raises:
        DatasetError: If it is no time, or negative.
    """
    if is_absent(value):
        return None
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
    try:
        seconds = float(value) if isinstance(value, (str, bytes, Real)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DatasetError(f"The {what} should be a time in seconds but is {shown(value)}.")
    if seconds < 0:
        raise DatasetError(f"The {what} is negative: {seconds:g} s.")
    return seconds


def shown(value: object) -> str:
    """A value in a message: cut where it is long, and of a list or mapping only the type."""
    if not isinstance(value, (str, bytes, int, float, type(None))):
        return f"of the type {type(value).__name__}"
    text = repr(value[:80] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant")
_MARK = re.compile(r"<(?:video|image)>")
_PLACEHOLDERS = re.compile(r"^(?:\s*<(?:video|image)>)+|(?:<(?:video|image)>\s*)+$")


def turns_of(value: object) -> list[tuple[Any, Any]]:
    """Pair the questions of a conversation with their answers.

    Args:
        value (`Any`):
            A list of turns `{"from": "human", "value": ...}` or `{"role": "user", "content": ...}`, or the same as JSON.

    Returns:
        `list[tuple[Any, Any]]`: Question and answer of each exchange, as the row has them. What a system says is left out.

    Raises:
        DatasetError: If there is no turn, or they do not alternate.
    """
    spoken = [(who, what) for who, what in map(_turn, _list_of(value)) if who != "system"]
    if not spoken:
        raise DatasetError("The conversation has no turn.")
    for index, (who, _) in enumerate(spoken):
        expected = _ANSWERS if index % 2 else _ASKS
        if who not in expected:
            raise DatasetError(
                f"Turn {index + 1} of the conversation should be of {' or '.join(expected)} but is of {shown(who)}."
            )
    if len(spoken) % 2:
        raise DatasetError("The last question of the conversation has no answer.")
    return [(spoken[index][1], spoken[index + 1][1]) for index in range(0, len(spoken), 2)]


def without_placeholders(question: object) -> Any:
    """Strip the placeholder of the clip from the prompt.

    Raises:
        DatasetError: If there are several, which stand for several clips or pictures.
    """
    if not isinstance(question, str):
        return question
    if (count := len(_MARK.findall(question))) > 1:
        raise DatasetError(f"The question has places for {count} clips or pictures, and an annotation has one clip.")
    return _PLACEHOLDERS.sub("", question)


def _list_of(value: object) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DatasetError("The conversation should be a list of turns but is text that is no JSON.") from error
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise DatasetError(f"The conversation should be a list of turns but is {shown(value)}.")
    return value


def _turn(turn: object) -> tuple[Any, Any]:
    if not isinstance(turn, Mapping):
        raise DatasetError(f"A turn of the conversation should say who speaks and what but is {shown(turn)}.")
    said = first_of(turn, ("value", "content"))
    return first_of(turn, ("from", "role")), "" if said is None else said
