"""Annotation records and rejected rows."""

import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

from storm_hf.atomic import written_atomically


@dataclass(frozen=True, kw_only=True)
class Box:
    """An object in a picture. Its sides are shares of the width and the height, 0 to 1 from the left and the top.

    Args:
        left (`float`):
            Left side.
        top (`float`):
            Upper side.
        right (`float`):
            Right side, beyond the left one.
        bottom (`float`):
            Lower side, below the upper one.
        label (`str`, *optional*, defaults to `""`):
            Name of the object.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class KeyFrame:
    """A moment of a clip that shows something of the answer.

    Args:
        seconds (`float`):
            Time from the start of the clip.
        boxes (`tuple[Box, ...]`, *optional*, defaults to `()`):
            Objects to look at.
    """

    seconds: float
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A question about a clip, with its answer.

    Args:
        id (`str`):
            Unique in its source.
        video (`Path`):
            Absolute path of a local clip.
        question (`str`):
            In words.
        options (`tuple[str, ...]`, *optional*, defaults to `()`):
            Texts of the options, without their letters. Empty where the question is open.
        answer (`str`):
            Text of the correct option, or the open answer.
        time_seconds (`float`, *optional*):
            The moment that the question is asked at, where the source knows it. What was seen until then answers it.
        license (`str`, *optional*, defaults to `"unknown"`):
            Licence of the row.
        source (`str`, *optional*, defaults to `""`):
            Name of the collection.
        start_seconds (`float`, *optional*):
            Start of the part of the clip that the question is about.
        end_seconds (`float`, *optional*):
            End of that part.
        chain_of_thought (`str`, *optional*, defaults to `""`):
            The reasoning that leads to the answer, in words.
        intervals (`tuple[tuple[float, float], ...]`, *optional*, defaults to `()`):
            Parts of the clip that show the answer: start and end in seconds from the start of the clip.
        key_frames (`tuple[KeyFrame, ...]`, *optional*, defaults to `()`):
            Moments of the clip that show the answer.
    """

    id: str
    video: Path
    question: str
    options: tuple[str, ...] = ()
    answer: str
    time_seconds: float | None = None
    license: str = "unknown"
    source: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None
    chain_of_thought: str = ""
    intervals: tuple[tuple[float, float], ...] = ()
    key_frames: tuple[KeyFrame, ...] = ()


EVIDENCE = ("chain_of_thought", "intervals", "key_frames")  # fields of an annotation that some thought videos show


@dataclass(frozen=True)
class Rejection:
    """A row that is not an annotation, and why.

    Args:
        line (`int`):
            Position, from 1: the line of a text file, the number of the row elsewhere.
        id (`str`, *optional*):
            Its id, where it has one.
        reason (`str`):
            One sentence.
        row (`dict[str, Any]`):
            The row itself; empty where it could not be parsed.
        source (`str`, *optional*, defaults to `""`):
            Name of the collection.
    """

    line: int
    id: str | None
    reason: str
    row: dict[str, Any]
    source: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a file, before anything is known of it.

    Args:
        line (`int`):
            Position in the source, from 1.
        content (`dict[str, Any]`):
            From the names of its fields to their values.
    """

    line: int
    content: dict[str, Any]


_WRITTEN = ("line", "id", "reason", "source")


def write_rejections(path: str | os.PathLike[str], rejections: Iterable[Rejection]) -> int:
    """Write a line of JSON for each rejected row: `line`, `id`, `reason`, `source`. The file is whole or absent.

    Args:
        path (`str` or `os.PathLike`):
            The file, usually `rejected.jsonl`.
        rejections (`Iterable[Rejection]`):
            They are written as they come.

    Returns:
        `int`: How many there were.
    """
    count = 0
    with written_atomically(Path(path)) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for rejection in rejections:
            file.write(json.dumps({name: getattr(rejection, name) for name in _WRITTEN}) + "\n")
            count += 1
    return count


class SeenIds:
    """A set of ids that lies on disk as soon as it grows. It goes away when it is closed."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # an empty name is a temporary file
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)

    def add(self, name: str) -> bool:
        """Remember an id.

        Returns:
            `bool`: Whether it is new.
        """
        key = blake2b(name.encode(), digest_size=16).digest()
        with closing(self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,))) as cursor:
            return cursor.rowcount == 1

    def __enter__(self) -> "SeenIds":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
