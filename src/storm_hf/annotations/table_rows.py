"""Rows of CSV, TSV and Parquet files, one at a time."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storm_hf.annotations.layout import Layout
from storm_hf.annotations.record import Rejection, Row
from storm_hf.errors import DatasetError, one_line
from storm_hf.optional import require


_BATCH = 256


def csv_rows(path: Path, delimiter: str) -> Iterator[Row | Rejection]:
    """Yield the rows of a table with a header. Their numbers are those of the lines that they begin on.

    Raises:
        DatasetError: If it has no header, or one with a name twice.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        names = _header(path, reader)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Rejection(line, None, f"The line is no valid table row: {error}.", {})
                continue
            if cells:
                yield _row_of(line, names, cells)


def parquet_rows(path: Path, layout: Layout) -> Iterator[Row | Rejection]:
    """Yield the rows of a Parquet file, with the columns that the layout reads. A broken row group costs its own rows.

    Raises:
        DatasetError: If it is no Parquet file.
    """
    pyarrow = require("pyarrow")
    parquet = require("pyarrow.parquet")
    broken = (pyarrow.ArrowException, OSError)
    try:
        file = parquet.ParquetFile(path)
    except broken as error:
        raise DatasetError(f"Expected {path} to be a Parquet file but {one_line(error)}") from error
    with file:
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


def _row_at(batch: Any, index: int, line: int) -> Row | Rejection:
    try:
        return Row(line, {name: batch.column(name)[index].as_py() for name in batch.schema.names})
    except UnicodeDecodeError:
        return Rejection(line, None, "The row has text that is not valid UTF-8.", {})


def _row_of(line: int, names: list[str], cells: list[str]) -> Row | Rejection:
    content = dict(zip(names, cells, strict=False))
    if len(cells) == len(names):
        return Row(line, content)
    return Rejection(line, None, f"The row has {len(cells)} cells but the header has {len(names)}.", content)
