"""Clips and pictures of a row: an annotation is about one clip and nothing else."""

from collections.abc import Mapping
from typing import Any

from storm_hf.annotations.fields import is_absent, look_up
from storm_hf.annotations.layout import PICTURES, Layout
from storm_hf.errors import DatasetError


def check_media(row: Mapping[str, Any], layout: Layout) -> None:
    """Make sure that a row has no second clip, and its conversation no picture.

    Raises:
        DatasetError: If it has. A question about two clips would else become one about the first.
    """
    for path in layout.fields["video"]:
        name, _, place = path.rpartition(".")
        if place.isdigit() and (count := _count(look_up(row, name))) > 1:
            raise DatasetError(f"The row has {count} clips as {name}, and an annotation has one.")
    pictures = sum(_count(row.get(name)) for name in PICTURES) if layout.conversation else 0
    if pictures:
        raise DatasetError("The row has a picture beside its clip, and an annotation has one clip.")


def _count(value: Any) -> int:
    """Number of the files that a value names."""
    if isinstance(value, list | tuple):
        return sum(not is_absent(each) for each in value)
    return int(not is_absent(value))
