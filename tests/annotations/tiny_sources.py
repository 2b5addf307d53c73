"""Small collections of annotations, written by hand, with clips that are files and no more."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storm_hf.annotations import Annotation, Rejection, SourceConfig, read_annotations


def make_clips(root: Path, *names: str) -> None:
    """Put files where clips should be. No reader of annotations opens them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"clip")


def row(**changes: Any) -> dict[str, Any]:
    """A good row of the plain layout about the clip `a.mp4`; a field changed to None is left out."""
    content = {
        "id": "1",
        "video": "a.mp4",
        "question": "What is it?",
        "options": ["a cat", "a dog"],
        "answer": "a dog",
    }
    return {name: value for name, value in (content | changes).items() if value is not None}


def write_lines(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    """Write a JSON Lines file; a row that is text is written as it is."""
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in rows))
    return path


def read(path: Path, **settings: Any) -> tuple[list[Annotation], list[Rejection]]:
    """Kept and rejected rows."""
    outcomes = list(read_annotations(SourceConfig(path=str(path), **settings)))
    kept = [each for each in outcomes if isinstance(each, Annotation)]
    return kept, [each for each in outcomes if isinstance(each, Rejection)]


def read_row(folder: Path, content: dict[str, Any], **settings: Any) -> Annotation | Rejection:
    """Read a single row whose clip `a.mp4` lies beside it."""
    make_clips(folder, "a.mp4")
    kept, rejected = read(write_lines(folder / "rows.jsonl", [content]), **settings)
    (outcome,) = [*kept, *rejected]
    return outcome
