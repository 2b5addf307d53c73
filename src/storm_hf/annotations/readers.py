"""Readers of a source, chosen by its file type, with fields of a second file joined to each row.

Bytes that are no UTF-8 become lone surrogates and NaN is taken as Python writes it, so that either spoils its own row and
no other; a streaming parser that is strict about them would end there.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TextIO

from storm_hf.annotations.layout import Join, Layout, written
from storm_hf.annotations.record import Rejection, Row
from storm_hf.annotations.source import SourceConfig
from storm_hf.annotations.tables import csv_rows, parquet_rows
from storm_hf.errors import ConfigurationError, DatasetError, one_line
from storm_hf.optional import require


_READERS: dict[str, Callable[[Path, Layout], Iterator[Row | Rejection]]] = {
    ".json": lambda path, layout: json_list(path, layout.rows, layout.nested),
    ".jsonl": lambda path, layout: _json_lines(path),
    ".csv": lambda path, layout: csv_rows(path, ","),
    ".tsv": lambda path, layout: csv_rows(path, "\t"),
    ".parquet": parquet_rows,
}
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")


def read_rows(source: SourceConfig, layout: Layout) -> Iterator[Row | Rejection]:
    """Read rows in their order, one at a time.

    Raises:
        DatasetError: If there is nothing to read at the path, or it is of no known form.
    """
    path = Path(source.path)
    reader = _READERS.get(path.suffix.lower())
    if path.is_file() and reader:
        rows = reader(path, layout)
        for join in layout.join:
            rows = _join_rows(rows, join, path)
        return rows
    if path.is_dir() or (not path.exists() and not reader and _HUB_NAME.fullmatch(source.path)):
        return _dataset_rows(source, layout)
    problem = f"is of the form {path.suffix!r}" if path.exists() else "does not exist"
    raise DatasetError(
        f"Expected annotations as a {', '.join(_READERS)} file, a folder, or the name of a data set on the Hub, but "
        f"{source.path} {problem}."
    )


def folder_of(source: SourceConfig) -> Path:
    """The folder that the paths of clips are relative to, if no other is given: that of the annotations.

    Raises:
        ConfigurationError: If the annotations do not lie in a folder of this machine.
    """
    path = Path(source.path)
    if not path.exists():
        raise ConfigurationError(f"{source.path} has no clips on this machine. Say with video_root where they are.")
    return path if path.is_dir() else path.parent


_CHUNK = 1 << 16
_LONGEST_ROW = 1 << 24  # characters; a row of that length has its brackets wrong
_SOMETHING = re.compile(r"[^ \t\r\n]")


class _Decoder(JSONDecoder):
    """Decoder that keeps the name of a key that an object has twice, of which Python's takes the last one."""

    def __init__(self) -> None:
        self.repeated: str | None = None
        super().__init__(object_pairs_hook=self._object)

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """Parse the value at a place, and begin anew with keys."""
        self.repeated = None
        return super().raw_decode(s, idx)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            self.repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return content


def _json_lines(path: Path) -> Iterator[Row | Rejection]:
    """Yield the rows of a JSON Lines file; blank lines are none. Their numbers are those of the lines."""
    decoder = _Decoder()
    with _open(path) as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield _row_of(line, text, decoder)


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
                yield _checked(number, text.value(), text.repeated)
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
                yield _checked(number, content, text.repeated)
                number += 1
            mark = text.take(",}")
    except DatasetError as error:
        yield _broken(number, error)


def _flat(value: object, keys: Mapping[str, Any], nested: Sequence[str]) -> Iterator[Any]:
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
        self._decoder = _Decoder()

    @property
    def repeated(self) -> str | None:
        """Key that an object within the last value has twice."""
        return self._decoder.repeated

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
                value, end = self._decoder.raw_decode(self._window, self._at)
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


def _row_of(line: int, text: str, decoder: _Decoder) -> Row | Rejection:
    try:
        return _checked(line, decoder.decode(text), decoder.repeated)
    except (ValueError, RecursionError) as error:
        return Rejection(line, None, f"The line is no valid JSON: {_reason(error)}.", {})


def _checked(line: int, content: object, repeated: str | None) -> Row | Rejection:
    if isinstance(content, dict):
        if repeated is None:
            return Row(line, content)
        return Rejection(line, None, f"The row has the key {repeated!r} twice.", content)
    return Rejection(line, None, f"The row should be an object but is of the type {type(content).__name__}.", {})


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _reason(error: Exception) -> str:
    if isinstance(error, JSONDecodeError):
        return error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
    return "nested too deeply" if isinstance(error, RecursionError) else "a number too long"


def _dataset_rows(source: SourceConfig, layout: Layout) -> Iterator[Row | Rejection]:
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


def _join_rows(rows: Iterator[Row | Rejection], join: Join, annotations: Path) -> Iterator[Row | Rejection]:
    """Add the fields of the second file to each row that it knows. What a row has itself stays.

    Args:
        rows (`Iterator[Row | Rejection]`):
            Of the annotations.
        join ([`~storm_hf.annotations.layout.Join`]):
            Says which file, and what it shares with them.
        annotations (`Path`):
            Their file.

    Raises:
        DatasetError: If the second file is missing or cannot be read.
    """
    further = _further_fields(join, annotations)
    for row in rows:
        if isinstance(row, Row) and (more := further.get(written(row.content.get(join.by)))):
            row = replace(row, content={**more, **row.content})
        yield row


def _further_fields(join: Join, annotations: Path) -> dict[str, Mapping[str, Any]]:
    """The fields of the second file by the value that it shares with a row; none where annotations are whole."""
    if not annotations.is_file() or not annotations.name.endswith(join.ending):
        return {}
    name = join.file.replace("{stem}", annotations.stem)
    path = annotations.with_name(f"{annotations.name.removesuffix(join.ending)}{name}" if join.ending else name)
    if not path.exists() and not join.ending:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"Expected {path} beside {annotations.name}, as JSON, but it is missing or damaged. Put both files in one folder."
        ) from error
    if isinstance(content, Mapping):
        return {str(key): {join.name: value} for key, value in content.items()}
    rows = content if isinstance(content, list) else []
    return {written(row[join.by]): row for row in rows if isinstance(row, Mapping) and join.by in row}
