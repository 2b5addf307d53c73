"""A setting is documented once and checked once, whether it comes from Python or from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.settings import (
    NonEmptyStr,
    PositiveFloat,
    PositiveInt,
    argument_help,
    check_folder,
    check_values,
    make_settings,
    read_yaml,
    with_help,
)


@dataclass(frozen=True)
class Limits:
    seconds: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        check_values(self)


@with_help
@dataclass(frozen=True)
class Recipe:
    """Recipe of a test.

    Args:
        name (`str`):
            Name of it,
            in two lines.
        size (`tuple[int, int]`, *optional*):
            Height and width.

    With a sentence after its arguments.
    """

    name: NonEmptyStr
    size: tuple[int, int] | None = None
    kind: Literal["small", "large"] = "small"
    count: PositiveInt | Literal["auto"] = "auto"
    is_kept: bool = True
    limits: Limits = field(default_factory=Limits)
    sources: Mapping[str, tuple[Limits, ...]] = field(default_factory=dict)
    keep: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_values(self)


def test_help_is_what_the_docstring_says():
    assert argument_help(Recipe) == {"name": "Name of it, in two lines.", "size": "Height and width."}
    assert [each.metadata.get("help") for each in fields(Recipe)][:3] == [
        "Name of it, in two lines.",
        "Height and width.",
        None,
    ]


def test_content_of_a_file_becomes_nested_records():
    content = {
        "name": "a",
        "size": [4, 6],
        "count": 3,
        "limits": {"seconds": 2},
        "sources": {"train": [{}, {"seconds": 0.5}]},
        "keep": {"any": [1]},
        "kind": None,
    }
    made = make_settings(Recipe, content, "a recipe")
    sources = {"train": (Limits(), Limits(0.5))}
    assert made == Recipe("a", (4, 6), count=3, limits=Limits(2), sources=sources, keep={"any": [1]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a"], r"Expected a recipe as a mapping but got \['a'\]\."),
        ({}, "Expected a recipe with name, which is missing"),
        ({"name": None}, "In a recipe: `name` must be text that is not empty, got None"),
        (
            {"name": "a", "colour": "red"},
            "Expected the settings name, size, .* in a recipe but got colour. Remove or rename",
        ),
        ({"name": ""}, "`name` must be text that is not empty, got ''"),
        ({"name": "a", "size": [4]}, r"`size` must be a list of 2 values, each a whole number, got \(4,\)"),
        ({"name": "a", "size": "46"}, "`size` must be a list of 2 values, each a whole number, got '46'"),
        ({"name": "a", "size": [4, 0.5]}, r"`size` must be .* got \(4, 0.5\)"),
        ({"name": "a", "kind": "huge"}, "`kind` must be one of small, large, got 'huge'"),
        ({"name": "a", "count": 0}, "`count` must be a whole number of 1 or more or one of auto, got 0"),
        ({"name": "a", "count": True}, "`count` must be .* got True"),
        ({"name": "a", "is_kept": 1}, "`is_kept` must be true or false, got 1"),
        ({"name": "a", "limits": 3}, "Expected `limits` as a mapping but got 3"),
        ({"name": "a", "limits": {"second": 3}}, "Expected the settings seconds in `limits` but got second"),
        ({"name": "a", "limits": {"seconds": 0}}, "In `limits`: `seconds` must be a number above 0, got 0"),
        ({"name": "a", "sources": {"train": [{"seconds": "1"}]}}, "In `sources.train`: `seconds` must be .* got '1'"),
        (
            {"name": "a", "sources": ["train"]},
            r"`sources` must be a mapping from text to a list of .* got \['train'\]",
        ),
        ({"name": "a", "sources": {1: []}}, r"`sources` must be a mapping from text to a list of .* got \{1: \(\)\}"),
    ],
)
def test_mistake_is_named_with_its_key(content, message):
    with pytest.raises(ConfigurationError, match=message):
        make_settings(Recipe, content, "a recipe")


def test_only_named_settings_are_checked_if_some_are_named():
    @dataclass
    class Mutable:
        count: PositiveInt = 0
        other: str = "a"

    check_values(Mutable(), ["other"])
    with pytest.raises(ConfigurationError, match="`count` must be a whole number of 1 or more, got 0"):
        check_values(Mutable())


@pytest.mark.parametrize("text", ["- a\n- b\n", "stages: [", ""], ids=["list", "broken", "empty"])
def test_file_that_holds_no_settings_is_named(text, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="run.yaml"):
        read_yaml(path)


def test_folder_that_is_new_or_there_is_taken(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "newer")


@pytest.mark.parametrize("below", ["", "align"])
def test_folder_that_is_a_file_or_lies_in_one_is_refused(tmp_path, below):
    (tmp_path / "run").touch()
    folder = tmp_path / "run" / below
    with pytest.raises(ConfigurationError, match=f"got {folder}, but {tmp_path / 'run'} is a file. Choose another"):
        check_folder(str(folder))
