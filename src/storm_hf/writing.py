"""Files that are whole or absent: whoever is killed while writing leaves nothing that could be taken for finished."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; it becomes `path` at the end, and nothing if the writing fails.

    Args:
        path (`Path`):
            The file to be. Its folder is made, and a file that is there already is replaced in one instant.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file, complete or not at all.

    Args:
        path (`str` or `os.PathLike`):
            Where it goes. Folders on the way are made; an existing file is replaced once the new one is whole.
        text (`str`):
            What it says, written as UTF-8.

    Returns:
        `Path`: The file written.
    """
    path = Path(path)
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that a person can read, complete or not at all, the same bytes for the same content."""
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a whole JSON file. What others wrote may hold anything: it is checked where it is read."""
    return json.loads(path.read_text(encoding="utf-8"))
