"""Files that are whole or absent: a process that is killed, or a machine that loses power, leaves no half of one."""

import errno
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
        _flush(unfinished)
        unfinished.replace(path)
        _flush(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to its disk; systems that cannot do that for folders do not."""
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except (PermissionError, FileNotFoundError):  # Windows opens no folder; nothing may have been written
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file, complete or not at all.

    Args:
        path (`str` or `os.PathLike`):
            Output path. Missing folders are made; an existing file is replaced once the new one is complete.
        text (`str`):
            Content, written as UTF-8.

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
