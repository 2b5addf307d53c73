"""Lists and mappings that were written into one text: by JSON, Python, numpy or pandas, by lines or with a separator."""

import ast
import json
import re
from itertools import pairwise
from typing import Any

from storm_hf.errors import DatasetError


_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?"
_ITEM = re.compile(rf"{_QUOTED}|{_NUMBER}|None|nan", re.DOTALL)
_NUMPY = re.compile(rf"\[\s*(?:{_ITEM.pattern})(?:\s+(?:{_ITEM.pattern}))*\s*\]", re.DOTALL)  # ['a cat' 'a dog']
_REPR = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^()\[\]]*)?\)", re.DOTALL)  # array(['a cat', 'a dog'], dtype=object)
_TEXT = re.compile(_QUOTED, re.DOTALL)
_BRACKETS = {"[": "]", "{": "}"}


def parse_printed(text: str, separator: str) -> Any:
    """Read a list or a mapping from the text that it was written as.

    Args:
        text (`str`):
            `["a cat", "a dog"]`, `['a cat' 'a dog']`, `{"A": "a cat"}`, one item per line, or `a cat|a dog`.
        separator (`str`):
            Separator between items that are one line.

    Raises:
        DatasetError: If it begins and ends as a list or a mapping, and cannot be read as one.
    """
    if text.startswith("array(") and (array := _REPR.fullmatch(text)):
        text = array[1]
    if text[:1] in _BRACKETS:
        if _NUMPY.fullmatch(text):
            return [_item(item) for item in _ITEM.findall(text)]
        if (value := _literal(text)) is not None:
            return value
        if text.endswith(_BRACKETS[text[0]]) and separator not in text:
            raise DatasetError("The options look like a list or a mapping, but are neither JSON nor Python.")
    parts = text.splitlines() if "\n" in text else text.split(separator)
    return [part for part in parts if part.strip()]


def _literal(text: str) -> Any:
    """The value that JSON or Python writes so; None where there is none, or where Python would join two texts."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _has_neighbours(text):
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _has_neighbours(text: str) -> bool:
    """Look for two quoted texts with nothing between them, which Python reads as one."""
    quoted = [match.span() for match in _TEXT.finditer(text)]
    return any(not text[end:start].strip() for (_, end), (start, _) in pairwise(quoted))


def _item(text: str) -> Any:
    if text in ("None", "nan"):
        return None
    return ast.literal_eval(text) if text[0] in "'\"" else text
