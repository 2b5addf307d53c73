"""Rows of JSON and JSON Lines files, one at a time.

Bytes that are no UTF-8 become lone surrogates and NaN is taken as Python writes it, so that either spoils its own row and
no other; a streaming parser that is strict about them would end there.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TextIO

from storm_hf.annotations.record import Rejection, Row
from storm_hf.errors import DatasetError


_CHUNK = 1 << 16
_LONGEST_ROW = 1 << 24  # characters; a row of that length has its brackets wrong
_SOMETHING = re.compile(r"[^ \t\r\n]")
_PARSE = JSONDecoder().raw_decode


def json_lines(path: Path) -> Iterator[Row | Rejection]:
    """Yield the rows of a JSON Lines file; blank lines are none. Their numbers are those of the lines."""
    with _open(path) as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield _row_of(line, text)


def json_list(path: Path, key: str, nested: Sequence[str] = ()) -> Iterator[Row | Rejection]:
    """Yield the rows of a JSON file that is a list, or an object with a list or with groups of rows, numbered from 1.

    The file is read through a window, never whole. What is no JSON ends it: the rows before are kept, and one rejection
    says where it broke.

    Args:
        path (`Path`):
            The file.
        key (`str`):
            The key of the list in an object.
        nested (`Sequence[str]`, *optional*, defaults to `()`):
            The field that each level of keys is of a row, where the object has groups of rows.

    Raises:
        DatasetError: If it is neither, or there is no such key.
    """
    with _open(path) as file:
        text = _JsonText(file)
        if nested and text.peek() == "{":
            yield from _grouped_rows(text, nested)
            return
        _go_to_list(text, path, key)
        number, mark = 0, text.peek()
        try:
            while mark != "]":
                number += 1
                yield _checked(number, text.value())
                mark = text.take(",]")
        except DatasetError as error:
            yield _broken(number, error)


def _grouped_rows(text: "_JsonText", nested: Sequence[str]) -> Iterator[Row | Rejection]:
    """Yield the rows of an object of groups, one group in memory at a time."""
    number = 1
    try:
        text.take("{")
        mark = text.peek()
        while mark != "}":
            name = text.value()
            text.take(":")
            for content in _flat(text.value(), {nested[0]: name}, nested[1:]):
                yield _checked(number, content)
                number += 1
            mark = text.take(",}")
    except DatasetError as error:
        yield _broken(number, error)


def _flat(value: Any, keys: Mapping[str, Any], nested: Sequence[str]) -> Iterator[Any]:
    """Yield the rows of a group, each with the keys that lead to it as fields."""
    if nested and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, {**keys, nested[0]: name}, nested[1:])
        return
    for row in value if isinstance(value, list) else [value]:
        yield {**keys, **row} if isinstance(row, Mapping) and not nested else row


def _broken(number: int, error: DatasetError) -> Rejection:
    return Rejection(number, None, f"The file is no valid JSON in or after row {number}: {error}", {})


class _JsonText:
    """A JSON file, seen through a window that moves forward."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._window = ""
        self._at = 0

    def peek(self) -> str:
        """The next character that is no blank, or nothing at the end."""
        while True:
            if match := _SOMETHING.search(self._window, self._at):
                self._at = match.start()
                return match[0]
            self._at = len(self._window)
            if not self._read_on():
                return ""

    def take(self, expected: str) -> str:
        """Go past one of some characters."""
        if (found := self.peek()) == "" or found not in expected:
            raise DatasetError(f"expected {' or '.join(expected)} but got {found or 'its end'}.")
        self._at += 1
        return found

    def value(self) -> Any:
        """Go past the next value."""
        self.peek()
        while True:
            try:
                value, end = _PARSE(self._window, self._at)
            except (ValueError, RecursionError) as error:
                if not self._read_on():
                    raise DatasetError(f"{_reason(error)}.") from error
                continue
            if end < len(self._window) or not self._read_on():  # a number at the end of the window may go on behind it
                self._at = end
                return value

    def _read_on(self) -> bool:
        """Read more of the file, as much again as is waiting. A value is so parsed in vain only a few times."""
        waiting = len(self._window) - self._at
        more = self._file.read(max(_CHUNK, waiting)) if waiting <= _LONGEST_ROW else ""
        if more:
            self._window, self._at = self._window[self._at :] + more, 0
        return bool(more)


def _go_to_list(text: _JsonText, path: Path, key: str) -> None:
    """Go past the bracket that opens the list of rows."""
    expected = f"Expected {path} to be a list of rows, or an object with such a list as {key!r}"
    try:
        if text.take("[{") == "[":
            return
        while text.peek() != "}":
            name = text.value()
            text.take(":")
            if name == key and text.peek() == "[":
                text.take("[")
                return
            text.value()
            if text.take(",}") == "}":
                break
    except DatasetError as error:
        raise DatasetError(f"{expected}, but it is no valid JSON: {error}") from error
    raise DatasetError(
        f"{expected}, but there is none. Name the key with `rows` in the layout, or with "
        "`nested` the fields that its keys are."
    )


def _row_of(line: int, text: str) -> Row | Rejection:
    try:
        return _checked(line, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Rejection(line, None, f"The line is no valid JSON: {_reason(error)}.", {})


def _checked(line: int, content: Any) -> Row | Rejection:
    if isinstance(content, dict):
        return Row(line, content)
    return Rejection(line, None, f"The row should be an object but is of the type {type(content).__name__}.", {})


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _reason(error: Exception) -> str:
    if isinstance(error, JSONDecodeError):
        return error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
    return "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
