"""Layout of a collection: the mapping from the fields of a row to an annotation, as a small YAML file."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from storm_hf.errors import ConfigurationError, one_line


AnswerForm = Literal["auto", "letter", "text", "index"]

PLACEHOLDER = re.compile(r"{([^{}]+)}")
PICTURES = ("image", "images")  # where conversations keep them
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
)


@dataclass(frozen=True, kw_only=True)
class Join:
    """A second JSON file beside the annotations, with further fields of their rows.

    Args:
        file (`str`):
            Its name. It is a list of rows, or an object with a value for each row.
        by (`str`):
            The field that both share; in an object, the field whose values are its keys.
        name (`str`, *optional*, defaults to `""`):
            Name in the row of the value of an object.
        ending (`str`, *optional*, defaults to `""`):
            The end of the annotations' own name in whose place `file` stands: `_q.json` and `_a.json` make `val_a.json` of
            `val_q.json`. Annotations that end in another way are whole. Without an ending the file may be absent.
    """

    file: str
    by: str
    name: str = ""
    ending: str = ""

    def __post_init__(self) -> None:
        if not all(isinstance(getattr(self, each.name), str) for each in fields(self)) or not (self.file and self.by):
            raise ConfigurationError(f"Expected the names of a file and of a field in `join` but got {self}.")


_TYPES: dict[str, Any] = {
    **dict.fromkeys(("source", "license", "rows", "video_path", "option_separator", "answer_form"), str),
    **dict.fromkeys(("conversation", "answer_tag"), (str, type(None))),
    **dict.fromkeys(("fields", "keep"), Mapping),
    **dict.fromkeys(("option_fields", "instructions", "nested"), tuple),
    "join": (Join, type(None)),
    "options_in_question": bool,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Mapping from the fields of a row to an annotation.

    A field is named by its path in the row: `answer`, or `qa.answer`, or `videos.0`.

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
        join ([`Join`], *optional*):
            A second file with further fields of the rows.
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

    Raises:
        ConfigurationError: If it says too little or too much to read a row.
    """

    fields: Mapping[str, tuple[str, ...]]
    source: str = ""
    license: str = "unknown"
    rows: str = "data"
    nested: tuple[str, ...] = ()
    join: Join | None = None
    keep: Mapping[str, Any] = field(default_factory=dict)
    video_path: str = "{video}"
    conversation: str | None = None
    option_fields: tuple[str, ...] = ()
    option_separator: str = "|"
    options_in_question: bool = False
    instructions: tuple[str, ...] = ()
    answer_tag: str | None = None
    answer_form: AnswerForm = "auto"

    def __post_init__(self) -> None:
        for name, types in _TYPES.items():
            if not isinstance(getattr(self, name), types):
                raise ConfigurationError(f"The setting {name} of a layout cannot be {getattr(self, name)!r}.")
        if unknown := sorted(set(self.fields) - set(_FIELDS)):
            raise ConfigurationError(f"A layout maps the fields {', '.join(_FIELDS)} but got {', '.join(unknown)}.")
        needed = {"video"} if self.conversation else {"video", "question", "answer"}
        if missing := sorted(needed - set(self.fields)):
            raise ConfigurationError(f"Expected a layout that says where a row keeps its {', '.join(missing)}.")
        if self.answer_form not in get_args(AnswerForm):
            forms = ", ".join(get_args(AnswerForm))
            raise ConfigurationError(f"Expected an answer_form of {forms} but got {self.answer_form!r}.")

    def columns(self, available: Iterable[str]) -> list[str]:
        """The columns of a table that this layout reads, so that the others, with their videos, stay unread."""
        paths = [path for paths in self.fields.values() for path in paths]
        paths += [*self.option_fields, *self.keep, *PLACEHOLDER.findall(self.video_path)]
        paths += [self.conversation, *PICTURES] if self.conversation else []
        paths += [self.join.by] if self.join else []
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


def _layout_of(content: Any) -> Layout:
    if not isinstance(content, Mapping) or not isinstance(content.get("fields"), Mapping):
        raise ConfigurationError("Expected a mapping with fields.")
    known = {setting.name for setting in fields(Layout)}
    if unknown := sorted(set(map(str, content)) - known):
        raise ConfigurationError(f"A layout has the settings {', '.join(sorted(known))} but got {', '.join(unknown)}.")
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    settings["fields"] = {name: _paths(value) for name, value in content["fields"].items()}
    if isinstance(join := content.get("join"), Mapping):
        settings["join"] = _join_of(join)
    return Layout(**settings)


def _join_of(content: Mapping[str, Any]) -> Join:
    known = {setting.name for setting in fields(Join)}
    if not {"file", "by"} <= set(content) <= known:
        raise ConfigurationError(
            f"Expected a `join` with {', '.join(sorted(known))} but got {', '.join(map(str, content))}."
        )
    return Join(**content)


def _paths(value: Any) -> tuple[str, ...]:
    """One path or a list of them, of the same meaning."""
    paths = tuple(value) if isinstance(value, list) else (value,)
    if not paths or not all(isinstance(path, str) for path in paths):
        raise ConfigurationError(f"Expected the name of a field, or a list of names, but got {value!r}.")
    return paths


def _folder() -> Any:
    return files("storm_hf.annotations").joinpath("layouts")
