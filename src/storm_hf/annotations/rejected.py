"""The rows that were rejected, as a file to look at."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from storm_hf.annotations.record import Rejection
from storm_hf.writing import written_whole


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
    with written_whole(Path(path)) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for rejection in rejections:
            file.write(json.dumps({name: getattr(rejection, name) for name in _WRITTEN}) + "\n")
            count += 1
    return count
