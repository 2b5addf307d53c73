"""Rows of CSV, TSV and Parquet files, one at a time."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from storm_hf.annotations.layout import Layout
from storm_hf.annotations.record import Rejection, Row
from storm_hf.errors import DatasetError, one_line
from storm_hf.optional import require


if TYPE_CHECKING:
    import pyarrow


_BATCH = 256


def csv_rows(path: Path, delimiter: str) -> Iterator[Row | Rejection]:
    """Yield the rows of a table with a header. Their numbers are those of the lines that they begin on.

    A quote that is not closed costs its own line; the lines that it took in are read again.

    Raises:
        DatasetError: If it has no header, or one with a name twice.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=delimiter)
        names = _header(path, reader)
        while True:
            lines.begin_row()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _unread(lines, f"The line is no valid table row: {error}.")
                continue
            if len(lines.row) > 1 and not _is_closed(lines.row, delimiter):
                yield _unread(lines, "")
            elif cells:
                yield _row_of(lines, names, cells)


class _Lines:
    """Lines of a file that knows which of them the row at hand is made of, and can give them out again."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self._again: list[str] = []  # the next one last
        self.row: list[str] = []
        self.number = 0  # of the last line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._file)
        self.row.append(line)
        self.number += 1
        return line

    @property
    def first(self) -> int:
        """Number of the first line of the row."""
        return self.number - len(self.row) + 1

    def begin_row(self) -> None:
        """Forget the lines of the row before."""
        self.row = []

    def give_back(self) -> None:
        """Give out all lines of the row again but the first."""
        again = self.row[1:]
        self._again += reversed(again)
        self.number -= len(again)
        self.row = self.row[:1]


def _unread(lines: _Lines, reason: str) -> Rejection:
    """Reject the line that a row begins on; what follows is read again."""
    taken = len(lines.row) - 1
    first = lines.first
    lines.give_back()
    if taken:
        reason = f"The line has a quote that is not closed, and took in {taken} lines behind it, which are read as rows again."
    return Rejection(first, None, reason, {})


def _is_closed(row: list[str], delimiter: str) -> bool:
    """Tell text of several lines in quotes from a quote that was forgotten, which ends at another one inside of a cell."""
    try:
        next(csv.reader(row, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True


def parquet_rows(path: Path, layout: Layout) -> Iterator[Row | Rejection]:
    """Yield the rows of a Parquet file, with the columns that the layout reads. A broken row group costs its own rows.

    Raises:
        DatasetError: If it is no Parquet file, or one with a column twice.
    """
    pyarrow = require("pyarrow")
    parquet = require("pyarrow.parquet")
    broken = (pyarrow.ArrowException, OSError)
    try:
        file = parquet.ParquetFile(path)
    except broken as error:
        raise DatasetError(f"Expected {path} to be a Parquet file but {one_line(error)}") from error
    with file:
        if twice := sorted(name for name, count in Counter(file.schema_arrow.names).items() if count > 1):
            raise DatasetError(
                f"Expected {path} to have each column once but it has {', '.join(twice)} several times."
            )
        columns = layout.columns(file.schema_arrow.names)
        line = 1
        for group in range(file.num_row_groups):
            end = line + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
                    for index in range(batch.num_rows):
                        yield _row_at(batch, index, line)
                        line += 1
            except broken as error:
                yield Rejection(line, None, f"Rows {line} to {end - 1} cannot be read: {one_line(error)}", {})
            line = end


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise DatasetError(f"Expected {path} to be a table but its first line is none: {error}.") from error
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"Expected {path} to begin with column names, each of them once, but got {names}.")
    return names


def _row_at(batch: "pyarrow.RecordBatch", index: int, line: int) -> Row | Rejection:
    try:
        return Row(line, {name: batch.column(name)[index].as_py() for name in batch.schema.names})
    except UnicodeDecodeError:
        return Rejection(line, None, "The row has text that is not valid UTF-8.", {})


def _row_of(lines: _Lines, names: list[str], cells: list[str]) -> Row | Rejection:
    content = dict(zip(names, cells, strict=False))
    if len(cells) == len(names):
        return Row(lines.first, content)
    place = "" if len(lines.row) == 1 else f", in lines {lines.first} to {lines.number}"
    return Rejection(
        lines.first, None, f"The row has {len(cells)} cells but the header has {len(names)}{place}.", content
    )
