"""Files that are whole or absent: whoever is killed while writing leaves nothing that could be taken for finished."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
