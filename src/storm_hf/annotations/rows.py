"""Choice of the reader of a source, by its file type."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from storm_hf.annotations.hub_rows import dataset_rows
from storm_hf.annotations.join import join_rows
from storm_hf.annotations.json_rows import json_lines, json_list
from storm_hf.annotations.layout import Layout
from storm_hf.annotations.record import Rejection, Row
from storm_hf.annotations.source import SourceConfig
from storm_hf.annotations.table_rows import csv_rows, parquet_rows
from storm_hf.errors import ConfigurationError, DatasetError


_READERS: dict[str, Callable[[Path, Layout], Iterator[Row | Rejection]]] = {
    ".json": lambda path, layout: json_list(path, layout.rows, layout.nested),
    ".jsonl": lambda path, layout: json_lines(path),
    ".csv": lambda path, layout: csv_rows(path, ","),
    ".tsv": lambda path, layout: csv_rows(path, "\t"),
    ".parquet": parquet_rows,
}
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")


def read_rows(source: SourceConfig, layout: Layout) -> Iterator[Row | Rejection]:
    """Read rows in their order, one at a time.

    Raises:
        DatasetError: If there is nothing to read at the path, or it is of no known form.
    """
    path = Path(source.path)
    reader = _READERS.get(path.suffix.lower())
    if path.is_file() and reader:
        rows = reader(path, layout)
        return join_rows(rows, layout.join, path) if layout.join else rows
    if path.is_dir() or (not path.exists() and not reader and _HUB_NAME.fullmatch(source.path)):
        return dataset_rows(source, layout)
    problem = f"is of the form {path.suffix!r}" if path.exists() else "does not exist"
    raise DatasetError(
        f"Expected annotations as a {', '.join(_READERS)} file, a folder, or the name of a data set on the Hub, but "
        f"{source.path} {problem}."
    )


def folder_of(source: SourceConfig) -> Path:
    """The folder that the paths of clips are relative to, if no other is given: that of the annotations.

    Raises:
        ConfigurationError: If the annotations do not lie in a folder of this machine.
    """
    path = Path(source.path)
    if not path.exists():
        raise ConfigurationError(f"{source.path} has no clips on this machine. Say with video_root where they are.")
    return path if path.is_dir() else path.parent
