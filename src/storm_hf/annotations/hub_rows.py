"""Rows of what `datasets` loads: a folder, or a data set on the Hub, which is streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storm_hf.annotations.layout import Layout
from storm_hf.annotations.record import Rejection, Row
from storm_hf.annotations.source import SourceConfig
from storm_hf.errors import DatasetError, one_line
from storm_hf.optional import require


def dataset_rows(source: SourceConfig, layout: Layout) -> Iterator[Row | Rejection]:
    """Yield the rows of a split, with the columns that the layout reads. Videos stay files: nothing is decoded.

    Raises:
        DatasetError: If it cannot be loaded or read to its end. A connection that broke is no property of a row, so what
            was read until then is not all there is.
    """
    dataset = _stream(source, layout)
    line = 0
    try:
        for line, content in enumerate(dataset, start=1):
            yield Row(line, content)
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{source.path} cannot be read after row {line}: {one_line(error)}") from error


def _stream(source: SourceConfig, layout: Layout) -> Any:
    try:
        dataset = _load(source)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DatasetError(
            f"Expected {source.path} to be a folder or the name of a data set on the Hub, with the split "
            f"{source.split!r}, but `datasets` says: {one_line(error)}"
        ) from error
    if dataset.column_names:
        dataset = dataset.select_columns(layout.columns(dataset.column_names))
    return dataset.decode(False)


def _load(source: SourceConfig) -> Any:
    datasets = require("datasets")
    if Path(source.path, "dataset_dict.json").exists() or Path(source.path, "state.json").exists():
        saved = datasets.load_from_disk(source.path)
        split = saved[source.split] if isinstance(saved, datasets.DatasetDict) else saved
        return split.to_iterable_dataset()
    return datasets.load_dataset(
        source.path, source.config, split=source.split, revision=source.revision, streaming=True
    )
