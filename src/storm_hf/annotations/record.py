"""Annotation records and rejected rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
