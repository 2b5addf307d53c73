"""Values of a row: where they stand, and whether they are what they should be.

What cannot be used raises a [`DatasetError`]; its message is the reason that the row is rejected with.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from storm_hf.errors import DatasetError


_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")  # 1:02:03.5 or 02:03


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `qa.answer` or `videos.0`; None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def is_absent(value: Any) -> bool:
    """Recognize an absent value: None, blank text, or the NaN of an empty table cell."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def first_of(row: Mapping[str, Any], paths: Iterable[str]) -> Any:
    """The first value that is there, or None."""
    return next((value for path in paths if not is_absent(value := look_up(row, path))), None)


def required(row: Mapping[str, Any], paths: Sequence[str], what: str) -> Any:
    """The first value that is there.

    Raises:
        DatasetError: If there is none, or only an empty one.
    """
    value = first_of(row, paths)
    if value is not None:
        return value
    if any(isinstance(look_up(row, path), str) for path in paths):
        raise DatasetError(f"The {what} is empty.")
    raise DatasetError(f"The row has no {' or '.join(map(repr, paths))}, which should be the {what}.")


def text_of(value: Any, what: str) -> str:
    """Text, without blanks around it. Numbers are written out.

    Raises:
        DatasetError: If it is a list or a mapping, blank, or text that was not UTF-8.
    """
    if not isinstance(value, (str, int, float)):
        raise DatasetError(f"The {what} should be text but is {shown(value)}.")
    text = str(value).strip()
    if not text:
        raise DatasetError(f"The {what} is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # the readers make lone surrogates of bytes that are no UTF-8
        raise DatasetError(f"The {what} is not valid UTF-8.") from error
    return text


def optional_text(value: Any, what: str) -> str | None:
    """Text, or None if the field is absent."""
    return None if is_absent(value) else text_of(value, what)


def seconds_of(value: Any, what: str) -> float | None:
    """A time in seconds, from a number or from `1:02:03.5`; None if the field is absent.

    Raises:
        DatasetError: If it is no time, or negative.
    """
    if is_absent(value):
        return None
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DatasetError(f"The {what} should be a time in seconds but is {shown(value)}.")
    if seconds < 0:
        raise DatasetError(f"The {what} is negative: {seconds:g} s.")
    return seconds


def shown(value: Any) -> str:
    """A value in a message: cut where it is long, and of a list or mapping only the type."""
    if not isinstance(value, (str, bytes, int, float, type(None))):
        return f"of the type {type(value).__name__}"
    text = repr(value[:80] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
