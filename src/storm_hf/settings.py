"""Settings of runs and recipes: help texts read from docstrings, values checked against annotations.

`huggingface_hub.dataclasses.strict`, which checks [`StormConfig`], sees assignments. The constructor of a frozen dataclass bypasses
them, so the records of this package call [`check_values`] instead.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from storm_hf.errors import ConfigurationError, one_line


if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Annotation: TypeAlias = Any  # a type, a union, a choice or an `Annotated`, which have no common type in Python 3.11
RecordT = TypeVar("RecordT", bound="DataclassInstance")

_ARGUMENT = re.compile(r"^    (\w+) \(`.*\):\n((?: {8}.*\n?)+)", re.MULTILINE)
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Mapping: "a mapping"}


@dataclass(frozen=True)
class Limit:
    """Condition of a value beyond its type, given in an `Annotated`.

    Args:
        words (`str`):
            The condition in a message, after the type: `"of 1 or more"`.
        holds (`Callable[[Any], bool]`):
            Tests a value of that type.
    """

    words: str
    holds: Callable[[Any], bool]


PositiveInt = Annotated[int, Limit("of 1 or more", lambda number: number >= 1)]
NonNegativeInt = Annotated[int, Limit("of 0 or more", lambda number: number >= 0)]
PositiveFloat = Annotated[float, Limit("above 0", lambda number: number > 0)]
NonNegativeFloat = Annotated[float, Limit("of 0 or more", lambda number: number >= 0)]
NonEmptyStr = Annotated[str, Limit("that is not empty", bool)]


def argument_help(config_class: type) -> dict[str, str]:
    """Map each argument documented in a class's docstring to its description, with whitespace collapsed."""
    documentation = inspect.getdoc(config_class) or ""
    return {name: " ".join(text.split()) for name, text in _ARGUMENT.findall(documentation)}


def with_help(config_class: type[RecordT]) -> type[RecordT]:
    """Give each field that a dataclass documents its description as `metadata["help"]`, where argument parsers look."""
    known = {field.name: field for field in fields(config_class)}
    for name, text in argument_help(config_class).items():
        known[name].metadata = MappingProxyType({**known[name].metadata, "help": text})
    return config_class


def check_values(settings: "DataclassInstance", names: Iterable[str] | None = None) -> None:
    """Check the values of a dataclass against its annotations.

    Args:
        settings (`DataclassInstance`):
            A record. That of a subclass with settings of another library is checked by `names`.
        names (`Iterable[str]`, *optional*):
            Fields to check, by default all.

    Raises:
        ConfigurationError: If a value is of another type, none of the choices, or out of its range.
    """
    annotations = get_type_hints(type(settings), include_extras=True)
    for name in [field.name for field in fields(settings)] if names is None else names:
        check_value(name, getattr(settings, name), annotations[name])


def check_names(given: Iterable[object], known: Iterable[str], what: str) -> None:
    """Refuse settings that do not exist.

    Raises:
        ConfigurationError: If there is one.
    """
    if unknown := sorted(set(map(str, given)) - set(known)):
        raise ConfigurationError(
            f"Expected the settings {', '.join(known)} in {what} but got {', '.join(unknown)}. Remove or rename them."
        )


def check_value(name: str, value: object, expected: Annotation) -> None:
    """Check a value against an annotation.

    Raises:
        ConfigurationError: If it is of another type, none of the choices, or out of its range.
    """
    if not _fits(value, expected):
        raise ConfigurationError(f"`{name}` must be {_described(expected)}, got {value!r}.")


def check_folder(folder: str | Path, what: str = "`output_dir`") -> None:
    """Refuse a folder for output that cannot be made, since it or a folder above it is a file.

    Args:
        folder (`str` or `Path`):
            The folder, which need not exist.
        what (`str`, *optional*, defaults to "`output_dir`"):
            Its name in the message.

    Raises:
        ConfigurationError: If one of them is a file.
    """
    there = next((place for place in (Path(folder), *Path(folder).parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigurationError(
            f"Expected {what} to be a folder, got {folder}, but {there} is a file. Choose another name."
        )


def make_settings(record: type[RecordT], content: object, what: str) -> RecordT:
    """Make a dataclass of what a YAML file holds: nested mappings become records, and lists tuples, as it is annotated.

    A key without a value is left out, where the field has a default.

    Args:
        record (`type`):
            The dataclass. One with a `from_dict` is made by it, where it is nested.
        content (`object`):
            Values by the names of its fields.
        what (`str`):
            The whole in a message, such as `"a recipe"`.

    Raises:
        ConfigurationError: If it is no mapping, a key is missing or unknown, or the record refuses a value.
    """
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"Expected {what} as a mapping but got {content!r}.")
    known = {field.name: field for field in fields(record)}
    check_names(content, known, what)
    required = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    if missing := [name for name in required if name not in content]:
        raise ConfigurationError(
            f"Expected {what} with {' and '.join(missing)}, which is missing: got {dict(content)}."
        )
    annotations = get_type_hints(record, include_extras=True)
    given = {name: value for name, value in content.items() if value is not None or name in required}
    values = {name: _converted(value, annotations[name], name) for name, value in given.items()}
    try:
        return record(**values)
    except ConfigurationError as error:
        raise ConfigurationError(f"In {what}: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigurationError: If there is no such file, or it holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"Expected a recipe at {path}, but it cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Expected YAML in {path}, but: {one_line(error)}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"Expected a mapping of arguments in {path}, got {type(content).__name__}.")
    return content


def _parts(expected: Annotation) -> tuple[Any, tuple[Any, ...]]:
    """A generic type without its arguments, None if it is not one, and the arguments."""
    return get_origin(expected), get_args(expected)


def _alternatives(expected: Annotation) -> tuple[Any, ...]:
    """Types of a union, or the one type."""
    origin, of = _parts(expected)
    return of if origin in (Union, UnionType) else (expected,)


def _fits(value: object, expected: Annotation) -> bool:
    origin, of = _parts(expected)
    if origin is Annotated:
        return _fits(value, of[0]) and all(limit.holds(value) for limit in of[1:])
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in of)
    if origin is Literal:
        return value in of
    if expected in (int, float):
        return isinstance(value, Integral if expected is int else Real) and not isinstance(value, bool)
    if expected is Any or not isinstance(value, origin or expected):
        return expected is Any
    if origin in (tuple, Sequence):
        each = of if origin is tuple and of[1:] != (...,) else of[:1] * len(value)
        return not isinstance(value, str) and len(value) == len(each) and all(map(_fits, value, each))
    if of and isinstance(value, Mapping):
        return all(_fits(key, of[0]) and _fits(item, of[1]) for key, item in value.items())
    return True


def _described(expected: Annotation) -> str:
    """The values that fit, in words. None, which is the same as leaving a setting out, is not among them."""
    return " or ".join(_described_one(each) for each in _alternatives(expected) if each is not NoneType)


def _described_one(expected: Annotation) -> str:
    origin, of = _parts(expected)
    if origin is Annotated:
        return " ".join((_described(of[0]), *(limit.words for limit in of[1:])))
    if origin is Literal:
        return f"one of {', '.join(map(str, of))}"
    if origin in (tuple, Sequence):
        size = "" if origin is Sequence or of[1:] == (...,) else f"{len(of)} "
        return f"a list of {size}values, each {_described(of[0])}"
    if is_dataclass(expected):
        required = [each.name for each in fields(expected) if each.default is each.default_factory is MISSING]
        return f"a mapping with {' and '.join(required)}" if required else "a mapping"
    if origin is Mapping and of[1] is not Any:
        return f"a mapping from {_described(of[0])} to {_described(of[1])}"
    return _WORDS.get(origin or expected, getattr(expected, "__name__", str(expected)))


def _converted(value: object, expected: Annotation, name: str) -> Any:
    """A value of a YAML file as its annotation has it, where the file cannot say so."""
    for each in _alternatives(expected):
        origin, of = _parts(each)
        if origin is tuple and isinstance(value, list):
            inner = of[:1] * len(value) if of[1:] == (...,) else of
            return (
                tuple(map(_converted, value, inner, [name] * len(value))) if len(inner) == len(value) else tuple(value)
            )
        if origin is not None and of and isinstance(value, Mapping) and issubclass(origin, Mapping):
            return {key: _converted(item, of[1], f"{name}.{key}") for key, item in value.items()}
        if is_dataclass(each) and not is_dataclass(value) and value is not None:
            record: Any = each
            return (
                record.from_dict(value) if hasattr(record, "from_dict") else make_settings(record, value, f"`{name}`")
            )
    return value
