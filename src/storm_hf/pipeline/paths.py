"""Paths of videos in rows: a data set stores them relative to its folder, so that it can be moved."""

from pathlib import Path
from typing import Any


VIDEO_COLUMNS = ("video", "thought_video")


def with_absolute_paths(dataset: Any, folder: Path) -> Any:
    """Make the paths of videos absolute, so that they can be opened from anywhere.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows whose video columns, where there are any, hold paths relative to `folder`, or none.
        folder (`Path`):
            The folder of the data set, absolute.

    Returns:
        [`~datasets.Dataset`]: The same rows, their columns in the same order.
    """
    order, features = dataset.column_names, dataset.features
    for name in VIDEO_COLUMNS:
        if getattr(features.get(name), "dtype", None) == "string":
            paths = [str(folder / path) if path else path for path in dataset[name]]
            dataset = dataset.remove_columns(name).add_column(name, paths, feature=features[name])
    return dataset.select_columns(order)


def relative_to(path: Path, folder: Path) -> str:
    """Name a file relative to a folder if it lies in it, else by its absolute path."""
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
