"""The targets that the builder of a data set chose, wherever the data set lies."""

import logging
import os
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from storm_hf.target_trajectory.trajectory import FILE_NAME, TargetTrajectory


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
