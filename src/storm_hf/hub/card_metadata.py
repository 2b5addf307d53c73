"""Metadata and shared parts of cards. A card that the Hub would refuse is refused before anything is sent."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from huggingface_hub import CardData, RepoCard

from storm_hf.errors import PublicationError, one_line
from storm_hf.hub.licenses import HUB_LICENSES
from storm_hf.optional import require


RepositoryKind = Literal["model", "dataset", "space"]
SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
    100_000_000: "10M<n<100M",
    1_000_000_000: "100M<n<1B",
    10_000_000_000: "1B<n<10B",
    100_000_000_000: "10B<n<100B",
    1_000_000_000_000: "100B<n<1T",
}
LARGEST = "n>1T"
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?\n)?---[ \t]*(\r?\n|\Z)", re.DOTALL)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LICENSE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)*|code|multilingual")
_TASKS = {  # those about pictures, videos and text
    *(
        "any-to-any",
        "image-text-to-text",
        "image-text-to-video",
        "image-to-text",
        "image-to-video",
        "image-classification",
    ),
    *("question-answering", "text-generation", "text-to-video", "video-classification", "video-text-to-text"),
    *("video-to-video", "visual-question-answering", "multiple-choice", "feature-extraction", "robotics", "other"),
}
_EMOJI = re.compile(r"[^\x00-\xff]{1,8}")
_COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
_SDKS = {"gradio", "docker", "static", "streamlit"}

_Check = Callable[[Any], bool]


def check_card(text: str, kind: RepositoryKind) -> None:
    """Check the metadata of a card as the Hub does.

    Args:
        text (`str`):
            The `README.md`.
        kind (`str`):
            `"model"`, `"dataset"` or `"space"`.

    Raises:
        PublicationError: If the Hub would refuse it; the message names each field.
    """
    if problems := _problems_of(text, kind):
        raise PublicationError(
            f"Expected metadata that the Hub takes in README.md but {'; '.join(problems)}. Correct it, and push again."
        )


def _problems_of(text: str, kind: RepositoryKind) -> list[str]:
    """List what the Hub would refuse in the metadata of a card; empty if nothing."""
    head = _HEAD.match(text)
    try:
        metadata = yaml.safe_load(head[1] or "") if head else {}
    except yaml.YAMLError as error:
        return [f"it is no YAML: {one_line(error)}"]
    metadata = metadata or {}
    if not isinstance(metadata, dict):
        return ["it is no table of fields"]
    checks = {**_COMMON, **_OF_KIND[kind]}
    problems = [
        f"`{name}` {checks[name][1]}, not {_shown(value)}"
        for name, value in metadata.items()
        if name in checks and value is not None and not checks[name][0](value)
    ]
    if "license_name" in metadata and metadata.get("license") != "other":
        problems.append("`license_name` needs `license: other`")
    return problems


def size_category(num_rows: int) -> str:
    """Name the size of a data set as the Hub does."""
    return next((name for limit, name in SIZES.items() if num_rows < limit), LARGEST)


def _shown(value: object) -> str:
    return one_line(ValueError(repr(value)))[:80]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _all(check: _Check) -> _Check:
    """Check a value, or each value of a list."""
    return lambda value: all(check(each) for each in value) if isinstance(value, list) else check(value)


def _matches(pattern: re.Pattern[str]) -> _Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _among(names: Iterable[str]) -> _Check:
    known = frozenset(names)
    return lambda value: isinstance(value, str) and value in known


def _is_result(value: object) -> bool:
    """Check one entry of `model-index`, as the Hub shows evaluation results."""
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and isinstance(value.get("results"), list)
        and all(
            _is_text(result.get("task", {}).get("type"))
            and _is_text(result.get("dataset", {}).get("type"))
            and _is_text(result.get("dataset", {}).get("name"))
            and all(_is_text(metric.get("type")) and "value" in metric for metric in result.get("metrics", [{}]))
            for result in value["results"]
        )
    )


def _are_configs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and _is_text(each.get("config_name")) for each in value
    )


_REPOSITORIES = (_all(_matches(_REPOSITORY)), "must name repositories of the Hub")
_COMMON: dict[str, tuple[_Check, str]] = {
    "license": (_all(_among(HUB_LICENSES)), "must be a licence of the Hub's list, or `other`"),
    "license_name": (_matches(_LICENSE_NAME), "must be small letters, digits, dots and hyphens"),
    "license_link": (
        lambda value: isinstance(value, str) and value.startswith(("https://", "http://", "LICENSE")),
        "must be LICENSE or an address",
    ),
    "language": (_all(_matches(_LANGUAGE)), "must be codes of languages, such as en"),
    "tags": (lambda value: isinstance(value, list) and all(map(_is_text, value)), "must be a list of texts"),
    "datasets": _REPOSITORIES,
}
_OF_KIND: dict[RepositoryKind, dict[str, tuple[_Check, str]]] = {
    "model": {
        "base_model": _REPOSITORIES,
        "base_model_relation": (_among(("adapter", "merge", "quantized", "finetune")), "must be a known relation"),
        "pipeline_tag": (_among(_TASKS), "must be a task of the Hub"),
        "library_name": (_matches(re.compile(r"[\w.-]+")), "must be the name of a library"),
        "model-index": (
            lambda value: isinstance(value, list) and all(map(_is_result, value)),
            "must hold results with task, data set and metric",
        ),
    },
    "dataset": {
        "pretty_name": (_is_text, "must be a text"),
        "size_categories": (_all(_among((*SIZES.values(), LARGEST, "unknown"))), "must be sizes of the Hub's list"),
        "task_categories": (_all(_among(_TASKS)), "must be tasks of the Hub"),
        "configs": (_are_configs, "must be a list of configurations with names"),
    },
    "space": {
        "sdk": (_among(_SDKS), "must be an SDK of the Hub"),
        "title": (_is_text, "must be a text"),
        "emoji": (_matches(_EMOJI), "must be an emoji"),
        "colorFrom": (_among(_COLORS), "must be a color of the Hub"),
        "colorTo": (_among(_COLORS), "must be a color of the Hub"),
        "short_description": (lambda value: _is_text(value) and len(value) <= 60, "must have 60 characters at most"),
        "models": _REPOSITORIES,
    },
}


PAPER = "2605.26014"
CITATION = f"""```bibtex
@misc{{storm2026,
    title = {{STORM: Internalized Modeling for Spatial-Temporal Reasoning in Video-Language Models}},
    eprint = {{{PAPER}}},
    archivePrefix = {{arXiv}},
    year = {{2026}}
}}
```"""

_LONGEST_CELL = 200
_MARKUP = re.compile(r"([\\`|\[\]#*~$]|(?<=[\w\])])\()")  # a bracket that follows a word may be a call or a link


_Card = TypeVar("_Card", bound=RepoCard)


def render_card(card: type[_Card], metadata: CardData, template: str, /, **values: object) -> _Card:
    """Render a card, as its own `from_template` does, which compiles the template each time: longer than saving a small model.

    Args:
        card (`type`):
            Class of the card.
        metadata ([`~huggingface_hub.CardData`]):
            Head of the card.
        template (`str`):
            Name of the template: `"model_card"`, `"dataset_card"` or `"space_card"`.
        values:
            Values of the template.
    """
    return card(_template(template).render(card_data=metadata.to_yaml(), **{**metadata.to_dict(), **values}))


@cache
def _template(name: str) -> Any:  # jinja2 is optional, so its types are not known here
    return require("jinja2").Template(
        files("storm_hf.hub").joinpath(f"templates/{name}.md").read_text(encoding="utf-8")
    )


def in_one_line(text: str) -> str:
    """Make text fit for code in a card: one line, without backticks and control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).replace("`", "'").split())


def as_words(content: object) -> Any:
    """Escape the texts of JSON content, so that a card shows them as they are: one line each, and no markup of theirs.

    Args:
        content (`Any`):
            Texts, lists and tables of them, names of fields too, and other values, which stay.
    """
    if isinstance(content, dict):
        return {as_words(name): as_words(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(as_words(value) for value in content)
    if not isinstance(content, str):
        return content
    line = " ".join("".join(each if each.isprintable() else " " for each in content).split())
    line = line if len(line) <= _LONGEST_CELL else line[: _LONGEST_CELL - 1] + "…"
    return _MARKUP.sub(r"\\\1", line.replace("&", "&amp;")).replace("<", "&lt;").replace(">", "&gt;")


_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def is_hub_name(text: str | None) -> bool:
    """Return True if a text can be the name of a repository: one slash at most, and no folder of that name here."""
    return bool(text) and _NAME.fullmatch(str(text)) is not None and not Path(str(text)).exists()


def worlds_only(trained_on: Iterable[str] | None) -> tuple[str, ...]:
    """Name the worlds that a model was trained on, if it has seen nothing else; otherwise nothing.

    Args:
        trained_on (`Iterable[str]`, *optional*):
            Sources of training data, as [`StormConfig`] has them; a world is `"world:shuffle"`.
    """
    sources = tuple(trained_on or ())
    if not all(source.startswith("world:") for source in sources):
        return ()
    return tuple(source.removeprefix("world:") for source in sources)
