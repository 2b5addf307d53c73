"""The videos of a published data set, back as files that training opens."""

import os
import warnings
from pathlib import Path
from typing import Any

from storm_hf.errors import DatasetError
from storm_hf.hub.dataset_folder import CLIP_COLUMNS
from storm_hf.hub.published_shards import VIDEOS
from storm_hf.optional import require
from storm_hf.writing import written_whole


_COLUMNS = ("video", "thought_video")
_ROWS_READ = 16  # rows whose videos are in memory at a time


def is_published(rows: Any) -> bool:
    """Return True if the rows of a [`~datasets.Dataset`] are features that `storm push` published."""
    return set(CLIP_COLUMNS) <= set(rows.column_names)


def with_clips(rows: Any) -> Any:
    """The rows of a [`~datasets.Dataset`] whose clip was published; a warning counts the others.

    Raises:
        DatasetError: If no clip was published.
    """
    kept = [number for number, clip in enumerate(rows["video"]) if clip]
    if not kept:
        raise DatasetError(
            "Expected rows with clips but none of their clips was published. Bring the clips that `clip_file` names, and "
            "build the data set from them."
        )
    if num_missing := len(rows) - len(kept):
        warnings.warn(
            f"{num_missing} of {len(rows)} rows are left out: the licence of their clip did not let it be published.",
            stacklevel=3,
        )
        rows = rows.select(kept)
    return rows


def fetch_videos(repo: str, revision: str | None = None) -> Path:
    """Download the videos of a data set that `storm push` published, once, and write them to files.

    Args:
        repo (`str`):
            Name of the repository.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `Path`: The folder that the paths in the data set are relative to. Videos that were withheld are not in it.
    """
    from huggingface_hub import constants, snapshot_download

    snapshot = Path(
        snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=f"{VIDEOS}/*.parquet")
    )
    folder = Path(constants.HF_HOME, "storm", "videos", repo.replace("/", "--"), snapshot.name)
    for shard in sorted((snapshot / VIDEOS).glob("*.parquet")):
        unpack(shard, folder)
    return folder


def unpack(shard: Path, folder: Path) -> None:
    """Write the videos inside a Parquet file to files, except those that are there.

    Raises:
        DatasetError: If a video's path leads out of the folder.
    """
    file = require("pyarrow.parquet").ParquetFile(shard)
    for batch in file.iter_batches(batch_size=_ROWS_READ, columns=list(_COLUMNS)):
        for row in batch.to_pylist():
            for video in filter(None, row.values()):
                _write(video, folder, shard)


def _write(video: dict[str, Any], folder: Path, shard: Path) -> None:
    path = Path(os.path.normpath(folder / video["path"]))
    if not path.is_relative_to(folder):
        raise DatasetError(
            f"Expected paths inside the data set but a row of {shard.name} has {video['path']!r}. Do not trust this data "
            "set; tell its owner."
        )
    if not path.exists():
        with written_whole(path) as unfinished:
            unfinished.write_bytes(video["bytes"])
