"""Paths of videos in rows: a data set stores them relative to its folder, so that it can be moved."""

import re
from pathlib import Path
from typing import Any


_VIDEO_COLUMNS = ("video", "thought_video", "videos")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_ORIGIN = "loaded by storm_hf from "  # before the place, in a field that selecting, mapping and shuffling keep


def with_absolute_paths(dataset: Any, folder: Path) -> Any:
    """Make the paths of videos absolute, so that they can be opened from anywhere.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows whose video columns, where there are any, hold paths relative to `folder`, lists of them, URLs or none.
        folder (`Path`):
            The folder of the data set, absolute.

    Returns:
        [`~datasets.Dataset`]: The same rows, their columns in the same order.
    """
    order, features = dataset.column_names, dataset.features
    for name in _VIDEO_COLUMNS:
        if _holds_text(features.get(name)):
            paths = [_absolute(path, folder) for path in dataset[name]]
            dataset = dataset.remove_columns(name).add_column(name, paths, feature=features[name])
    return dataset.select_columns(order)


def _holds_text(feature: Any) -> bool:
    """Check that a column has texts, or lists of them; pandas and polars write the type `large_string`."""
    feature = getattr(feature, "feature", feature)
    return str(getattr(feature, "dtype", None)) in ("string", "large_string")


def _absolute(path: Any, folder: Path) -> Any:
    """A path, or each one of a list, below a folder; a URL, and none, stay as they are."""
    if isinstance(path, list):
        return [_absolute(each, folder) for each in path]
    return str(folder / path) if path and not is_url(path) else path


def is_url(place: str) -> bool:
    """Check that a place is a URL, `file:` and `data:` among them, and no path."""
    return _URL.match(place) is not None


def relative_to(path: Path, folder: Path) -> str:
    """Name a file relative to a folder if it lies in it, else by its absolute path."""
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def with_origin(dataset: Any, place: str) -> Any:
    """Note in the rows' own record where they were loaded from, for `origin_of`.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows; the record that they have is changed.
        place (`str`):
            The data set's folder, or its name on the Hub.
    """
    dataset.info.homepage = _ORIGIN + place
    return dataset


def origin_of(dataset: object) -> str | None:
    """Look up the folder, or the name on the Hub, that rows were loaded from; None if it is unknown or not one.

    Rows that were selected, mapped, shuffled or saved since then still know it; `to_iterable_dataset` forgets it.
    """
    homepage = getattr(getattr(dataset, "info", None), "homepage", None) or ""
    places = {place for place in homepage.split(_ORIGIN) if place.strip()} if homepage.startswith(_ORIGIN) else set()
    return places.pop().strip() if len(places) == 1 else None
