"""Evidence of an answer as a row states it: intervals, key frames and boxes.

What cannot be used raises a [`DatasetError`]; its message is the reason that the row is rejected with.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storm_hf.annotations.layout import first_of, is_absent, optional_text, seconds_of, shown
from storm_hf.annotations.record import Box, KeyFrame
from storm_hf.errors import DatasetError


_ROUNDING = 0.01  # of the picture: as far as a box may reach beyond it, where detectors and rounding leave it


def intervals_of(value: object) -> tuple[tuple[float, float], ...]:
    """Read the intervals of a row.

    Args:
        value (`Any`):
            `[[3, 9.5], ["1:02", "1:10"]]`, one interval `[3, 9.5]`, or the same as JSON. None or nothing means none.

    Returns:
        `tuple[tuple[float, float], ...]`: Start and end of each in seconds, in the order of the row.

    Raises:
        DatasetError: If one is no pair of times, negative, empty or reversed.
    """
    listed = _list_of(value, "intervals")
    if len(listed) == 2 and not any(isinstance(end, Sequence) and not isinstance(end, str) for end in listed):
        listed = [listed]
    return tuple(_interval(each, f"interval {number}") for number, each in enumerate(listed, start=1))


def _interval(value: object, what: str) -> tuple[float, float]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise DatasetError(f"The {what} should be a start and an end in seconds but is {shown(value)}.")
    start, end = (_seconds(each, f"{name} of the {what}") for name, each in zip(("start", "end"), value, strict=True))
    if start == end:
        raise DatasetError(f"The {what} is empty: it begins and ends at {start:g} s.")
    if start > end:
        raise DatasetError(f"The {what} is reversed: it begins at {start:g} s and ends at {end:g} s.")
    return start, end


def key_frames_of(value: object, fps: float, size: tuple[object, object]) -> tuple[KeyFrame, ...]:
    """Read the key frames of a row, with their boxes.

    Args:
        value (`Any`):
            A list, or the same as JSON: a time each, or `{"time": 1.5, "boxes": ...}`. Boxes are a list of
            `[left, top, right, bottom]`, or an object from labels to a box or a list of them, which may be empty. None means no
            key frames.
        fps (`float`):
            Divisor of a time that makes it seconds.
        size (`tuple[object, object]`):
            Width and height that boxes are measured in.

    Returns:
        `tuple[KeyFrame, ...]`: Sorted by time.

    Raises:
        DatasetError: If a time is none, or a box is none, empty, reversed or outside of the picture.
    """
    listed = _list_of(value, "key frames")
    read = [_key_frame(each, f"key frame {number}", fps, size) for number, each in enumerate(listed, start=1)]
    return tuple(sorted(read, key=lambda frame: frame.seconds))


def _key_frame(value: object, what: str, fps: float, size: tuple[object, object]) -> KeyFrame:
    if not isinstance(value, Mapping):
        return KeyFrame(seconds=_seconds(value, f"time of the {what}") / fps)
    time = _seconds(first_of(value, ("time", "seconds", "frame")), f"time of the {what}")
    boxes = enumerate(_boxes(value.get("boxes"), what), start=1)
    return KeyFrame(
        seconds=time / fps,
        boxes=tuple(_box(sides, label, size, f"box {number} of the {what}") for number, (label, sides) in boxes),
    )


def _boxes(value: object, what: str) -> Iterator[tuple[str, Any]]:
    """Yield the boxes of a key frame with their labels."""
    if not isinstance(value, Mapping):
        for box in _list_of(value, f"boxes of the {what}"):
            yield "", box
        return
    for label, boxes in value.items():
        listed = _list_of(boxes, f"boxes of the {what}")
        is_one = len(listed) > 0 and (isinstance(listed[0], str) or not isinstance(listed[0], Sequence))
        for box in [listed] if is_one else listed:
            yield optional_text(label, "label of a box") or "", box


def _box(sides: object, label: str, size: tuple[object, object], what: str) -> Box:
    width, height = (_size(side) for side in size)
    if isinstance(sides, (str, Mapping)) or not isinstance(sides, Sequence) or len(sides) != 4:
        raise DatasetError(f"The {what} should be left, top, right and bottom but is {shown(sides)}.")
    left, top, right, bottom = (
        _number(side, what) / scale for side, scale in zip(sides, (width, height) * 2, strict=True)
    )
    if left >= right or top >= bottom:
        raise DatasetError(f"The {what} is empty or reversed: left, top, right and bottom are {list(sides)}.")
    if min(left, top) < -_ROUNDING or max(right, bottom) > 1 + _ROUNDING:
        raise DatasetError(
            f"The {what} lies outside of the picture: left, top, right and bottom are {list(sides)} of a width of {width:g} "
            f"and a height of {height:g}."
        )
    return Box(left=max(left, 0.0), top=max(top, 0.0), right=min(right, 1.0), bottom=min(bottom, 1.0), label=label)


def _size(value: object) -> float:
    size = _number(value, "size of the picture that boxes are measured in")
    if size <= 0:
        raise DatasetError(f"The size of the picture that boxes are measured in should be above 0 but is {size:g}.")
    return size


def _number(value: object, what: str) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DatasetError(f"The {what} should be in numbers but has {shown(value)}.")
    return number


def _seconds(value: object, what: str) -> float:
    seconds = seconds_of(value, what)
    if seconds is None:
        raise DatasetError(f"The {what} is missing.")
    return seconds


def _list_of(value: object, what: str) -> Sequence[Any]:
    """A list, or the same as JSON; nothing is an empty one."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"The {what} should be a list but are text that is no JSON: {shown(value)}.") from error
    if is_absent(value):
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise DatasetError(f"The {what} should be a list but are {shown(value)}.")
    return value
