"""Rows with fields from a second file beside the annotations."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from storm_hf.annotations.layout import Join
from storm_hf.annotations.record import Rejection, Row
from storm_hf.errors import DatasetError


def join_rows(rows: Iterator[Row | Rejection], join: Join, annotations: Path) -> Iterator[Row | Rejection]:
    """Add the fields of the second file to each row that it knows. What a row has itself stays.

    Args:
        rows (`Iterator[Row | Rejection]`):
            Of the annotations.
        join ([`~storm_hf.annotations.layout.Join`]):
            Says which file, and what it shares with them.
        annotations (`Path`):
            Their file.

    Raises:
        DatasetError: If the second file is missing or cannot be read.
    """
    further = _further_fields(join, annotations)
    for row in rows:
        if isinstance(row, Row) and (more := further.get(str(row.content.get(join.by)))):
            row = replace(row, content={**more, **row.content})
        yield row


def _further_fields(join: Join, annotations: Path) -> dict[str, Mapping[str, Any]]:
    """The fields of the second file by the value that it shares with a row; none where annotations are whole."""
    if not annotations.is_file() or not annotations.name.endswith(join.ending):
        return {}
    path = annotations.with_name(
        f"{annotations.name.removesuffix(join.ending)}{join.file}" if join.ending else join.file
    )
    if not path.exists() and not join.ending:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"Expected {path} beside {annotations.name}, as JSON, but it is missing or damaged. Put both files in one folder."
        ) from error
    if isinstance(content, Mapping):
        return {str(key): {join.name: value} for key, value in content.items()}
    rows = content if isinstance(content, list) else []
    return {str(row[join.by]): row for row in rows if isinstance(row, Mapping) and join.by in row}
