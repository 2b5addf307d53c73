"""Code blocks and commands of the README and of the pages in `docs/`.

Every block is fenced and says its language, so that it belongs to a test; an indented one is a picture, unless a line of it
is a command.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "bash", "json", "yaml", "bibtex"}  # each has a test

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:storm|make|python|accelerate|pip|bash)\s")
_INDENTED = re.compile(r"^    (?!    )(.*?)$", flags=re.MULTILINE)
_INLINE = re.compile(r"`((?:storm|python|make) [^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str | None = None) -> list[Block]:
    """All fenced blocks, or those of one language."""
    found = [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2])
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def commands() -> list[str]:
    """Whole commands, each once: those in blocks and in indented lines."""
    return _each_once(_commands())


def mentions() -> list[str]:
    """Commands inside of sentences and tables, each once; they may be parts of one."""
    return _each_once(match for page in PAGES for match in _INLINE.findall(_prose(page)))


def _each_once(lines: Iterable[str]) -> list[str]:
    """Sorted, without comments and without where the output goes."""
    return sorted({shlex.join(shlex.split(line.partition(" >")[0], comments=True)) for line in lines})


def _commands() -> Iterator[str]:
    for block in blocks("bash"):
        yield from filter(None, _joined(block.text).splitlines())
    for page in PAGES:
        yield from (line for line in _INDENTED.findall(_joined(_prose(page))) if _COMMAND.match(line))


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _joined(text: str) -> str:
    """Lines that end in a backslash, with what continues them."""
    return re.sub(r"\\\n\s*", "", text)
