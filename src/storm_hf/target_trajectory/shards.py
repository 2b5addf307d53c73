"""Data sets of thoughts as Parquet shards that `load_dataset` opens, and back.

    folder/  data/train-00000-of-00008.parquet …  videos/…  whitening.safetensors  fingerprint.json  manifest.json

The manifest is written last: a folder that has one is complete.

Axes: P temporal patches, C cells of a patch, D hidden size.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from storm_hf.atomic import read_json
from storm_hf.errors import DatasetError
from storm_hf.optional import require
from storm_hf.pipeline.paths import with_absolute_paths
from storm_hf.target_trajectory.schema import FEATURES_COLUMN, MANIFEST
from storm_hf.target_trajectory.trajectory import FILE_NAME, TargetTrajectory


def shard_names(split: str, num_rows: int, rows_per_shard: int) -> dict[str, range]:
    """Name the shards of a split as `load_dataset` looks for them, each with the rows it holds."""
    starts = range(0, num_rows, rows_per_shard)
    return {
        f"{split}-{index:05d}-of-{len(starts):05d}.parquet": range(start, min(start + rows_per_shard, num_rows))
        for index, start in enumerate(starts)
    }


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]], features: Any) -> None:
    """Write rows as one Parquet file, the same bytes for the same rows.

    Args:
        path (`Path`):
            Output path. The caller renames it once it is complete.
        rows (`Sequence[Mapping[str, Any]]`):
            With the columns of `features`. Thought features are arrays of shape (temporal patches, cells, hidden size).
        features ([`~datasets.Features`]):
            Of `storm_thoughts_features`.

    Raises:
        DatasetError: If a row has other columns, or features of another shape.
    """
    for row in rows:
        _check_row(row, features)
    columns = {name: [row[name] for row in rows] for name in features}
    dataset = require("datasets").Dataset.from_dict(columns, features=features)
    require("pyarrow.parquet").write_table(dataset.data.table, path)


def _check_row(row: Mapping[str, Any], features: Any) -> None:
    if different := sorted(set(row) ^ set(features)):
        raise DatasetError(
            f"Expected rows with the columns {', '.join(features)} but {', '.join(different)} is missing or unknown. See "
            "`storm_thoughts_features`."
        )
    expected, shape = features[FEATURES_COLUMN].shape[1:], row[FEATURES_COLUMN].shape
    if len(shape) != 3 or shape[0] == 0 or shape[1:] != tuple(expected):
        raise DatasetError(
            f"Expected thought features of shape (temporal patches, {', '.join(map(str, expected))}) in the row {row['id']} "
            f"but got {shape}. Thought videos of one data set have one resolution and one encoder."
        )


def load_thoughts(folder: str | os.PathLike[str]) -> Any:
    """Open a data set of thoughts with the paths of its videos made absolute.

    `load_dataset(folder)` opens the same files; there, paths are relative to the folder, so that it can be moved.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of a builder.

    Returns:
        [`~datasets.DatasetDict`]: One data set per split.

    Raises:
        DatasetError: If the folder holds no complete data set.
    """
    folder = Path(folder).resolve()
    read_manifest(folder)
    splits = require("datasets").load_dataset(str(folder))
    for name, dataset in splits.items():
        splits[name] = with_absolute_paths(dataset, folder)
    return splits


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a builder wrote last.

    Raises:
        DatasetError: If it is not there.
    """
    path = Path(folder, MANIFEST)
    if not path.is_file():
        raise DatasetError(
            f"Expected {MANIFEST} in {folder} but it is not there. Run the builder again; it continues."
        )
    return read_json(path)


def read_shard(path: Path) -> Any:
    """Open one shard as a [`~datasets.Dataset`] in memory, without a cache."""
    datasets = require("datasets")
    return datasets.Dataset(datasets.table.InMemoryTable(require("pyarrow.parquet").read_table(path)))


def iterate_features(dataset: Any, batch_size: int = 512) -> Iterator[list[np.ndarray]]:
    """Read the thought features of a data set in batches, straight from their Arrow buffers.

    Args:
        dataset ([`~datasets.Dataset`]):
            One split.
        batch_size (`int`, *optional*, defaults to `512`):
            Rows read at a time.

    Yields:
        `list[np.ndarray]`: Features of shape `(temporal patches, cells, hidden size)` in float16, one array per row.
    """
    sizes = tuple(dataset.features[FEATURES_COLUMN].shape[1:])
    columns = dataset.select_columns([FEATURES_COLUMN]).with_format("arrow")
    for table in columns.iter(batch_size):
        yield [array for chunk in table[FEATURES_COLUMN].chunks for array in _arrays(chunk.storage, sizes)]


def _arrays(patches: Any, sizes: tuple[int, int]) -> list[np.ndarray]:
    """Cut a list array of temporal patches into one array (P, C, D) per row."""
    offsets = patches.offsets.to_numpy()
    values = patches.flatten().flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, *sizes)
    return np.split(values, offsets[1:-1] - offsets[0])


logger = logging.getLogger(__name__)


def find_targets(dataset: str | os.PathLike[str], revision: str | None = None) -> TargetTrajectory | None:
    """Look for the targets that travel with a data set.

    Args:
        dataset (`str` or `os.PathLike`):
            A folder, or the name of a data set on the Hub, of which one small file is downloaded.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.

    Returns:
        [`TargetTrajectory`], or None where the data set has none. What cannot be looked up, since the Hub is away, is logged.

    Raises:
        DatasetError: If the file is another's.
    """
    if Path(dataset).is_dir():
        return TargetTrajectory.load(dataset) if Path(dataset, FILE_NAME).is_file() else None
    try:
        path = hf_hub_download(os.fspath(dataset), FILE_NAME, repo_type="dataset", revision=revision)
    except LocalEntryNotFoundError:
        logger.warning(
            "The Hub cannot be reached to look for %s of %s, and it is not in the cache: targets are fitted anew. Download it "
            "first to train on those that the data set was published with.",
            FILE_NAME,
            dataset,
        )
        return None
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return None
    return TargetTrajectory.load(Path(path).parent)
