"""Atomic writes: a killed process or a power failure leaves a file complete or absent."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storm_hf.errors import DatasetError, one_line


_OF_THE_SYSTEM = re.compile(
    r"\(os error (\d+)\)"
)  # as libraries in Rust, such as safetensors, write it into their text


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; it becomes `path` at the end, and nothing if the writing fails.

    Args:
        path (`Path`):
            The file to be. Its folder is made, and a file that is there already is replaced in one instant.

    Raises:
        OSError: If the system does not write it, such as to a full disk, also where a library has an error of its own for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        _flush(unfinished)
        unfinished.replace(path)
        _flush(path.parent)
    except Exception as error:
        if (found := _OF_THE_SYSTEM.search(str(error))) and not isinstance(error, OSError):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def flush_tree(folder: Path) -> None:
    """Have the system write a folder and all that is in it to its disk."""
    for path in (*folder.rglob("*"), folder):
        _flush(path)


def move_files(source: Path, target: Path) -> None:
    """Move every file of a folder, each in one instant over one of its name, and remove the folder.

    Args:
        source (`Path`):
            A folder of whole files, on the disk of `target`.
        target (`Path`):
            Target folder. Its other files stay.
    """
    flush_tree(source)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    _flush(target)
    shutil.rmtree(source)


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
    with written_atomically(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: object) -> None:
    """Write a JSON file that a person can read, complete or not at all, the same bytes for the same content."""
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a whole JSON file. What others wrote may hold anything: it is checked where it is read.

    Raises:
        DatasetError: If it is no JSON, as a copy that was cut off.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(
            f"Expected JSON in {path} but it is damaged: {one_line(error)}. Copy the file again, or make it anew."
        ) from error
