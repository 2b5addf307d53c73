"""Paths of this machine: found in texts, and cut down to the names of their files."""

import re
from collections.abc import Iterator
from typing import Any


_ROOTS = "home|Users|root|tmp|var|mnt|media|opt|srv|private|scratch|workspace|Volumes|nfs|lustre|gpfs|export|gscratch|kaggle|etc|usr"
_SINGLE = f"{_ROOTS}|data|datasets|storage|shared|cluster|projects|models|checkpoints|work|content"
_BEFORE = r"(?<![\w.:/<>\\~])(?<!\]\()"
_ABSOLUTE = re.compile(r"^(~[\w.-]*[\\/]|/(?=[\w.~-])|file:/|[A-Za-z]:[\\/]|\\\\)[^\n]*$")
_OTHER_SYSTEMS = r"|\bfile:/\S+|(?<!\w)[A-Za-z]:\\[^\s\"']+|(?<![\w~/])~[\w.-]*/[\w.][^\s\"'`]*"
# In the words of rows and in code, where other slashes are common: folders that machines are known by.
_IN_WORDS = re.compile(rf"{_BEFORE}/(?:{_ROOTS})/[^\s\"'`]+" + _OTHER_SYSTEMS)
# In configurations and cards: any path of two names and more, and single folders that machines are known by.
_ROUTES = r"(?!(?:api|v\d+)/)"  # of a server
_IN_SENTENCES = re.compile(
    rf"{_BEFORE}/(?:{_SINGLE})(?:/[^\s\"'`]*)?(?![\w-])|{_BEFORE}/{_ROUTES}[\w.+@-]+(?:/[\w.+@-]+)+"
    r"|(?<!\w)[A-Za-z]:/(?!/)[^\s\"']+|(?<!\\)\\\\[\w.-]+\\[\w$.-]+" + _OTHER_SYSTEMS
)


def local_path_in_words(text: str) -> str | None:
    """Find a path of this machine in a question, an answer or code."""
    found = _IN_WORDS.search(text)
    return found[0] if found else None


def local_path_in_sentence(text: str) -> str | None:
    """Find a path of this machine in a card or a sentence of a configuration."""
    found = _IN_SENTENCES.search(text)
    return found[0] if found else None


def local_path_in_value(text: str) -> str | None:
    """Find a path of this machine in a value of a configuration: the whole value, or a part of it."""
    return text if _ABSOLUTE.match(text) else local_path_in_sentence(text)


def texts_of(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text of JSON content, names of fields too, with the name of its field."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield key, name
            yield from texts_of(value, f"{key}.{name}" if key else name)
    elif isinstance(content, list):
        for value in content:
            yield from texts_of(value, key)
    elif isinstance(content, str):
        yield key, content


def without_folders(content: Any) -> Any:
    """Replace each absolute path in JSON content by the name of its file."""
    if isinstance(content, dict):
        return {name: without_folders(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return last_name(content) if isinstance(content, str) else content


def last_name(text: str) -> str:
    """Cut an absolute path down to its last name; return any other text as it is."""
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if _ABSOLUTE.match(text) else text
