"""Texts and files that are about to be published, looked through for credentials, pickles and paths of this machine."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from storm_hf.errors import PublicationError
from storm_hf.hub.contents import check_file, check_secrets


_BETWEEN_TEXTS = "\n\x00\n"  # no pattern goes on beyond it
_VOCABULARIES = ("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "special_tokens_map.json")
_OF_TOKENS = {
    "added_tokens",
    "added_tokens_decoder",
    "extra_special_tokens",
    "vocab",
    "merges",
}  # each entry is a token


def check_published(path: Path, name: str) -> None:
    """Look through a file that is published: its kind, credentials, and paths of this machine.

    Args:
        path (`Path`):
            The file.
        name (`str`):
            Its path in the repository.

    Raises:
        PublicationError: If it must not be published; the message names it and shows nothing of a credential.
    """
    text = check_file(path, name)
    if text is None or name in _VOCABULARIES or name.endswith((".tiktoken", ".safetensors.index.json")):
        return
    if name.endswith(".json"):
        check_json(_parsed(text, name), name)
    elif name.endswith((".py", ".jinja")):
        _check_path(_local_path_in_words(text), name)
    else:
        _check_path(_local_path_in_sentence(text), name)


def check_json(content: object, name: str) -> None:
    """Look for paths of this machine in JSON content, in names of fields too. The entries of a vocabulary are no texts.

    Raises:
        PublicationError: If there is one; the message names the field.
    """
    for key, value in _texts_of(_without_tokens(content)):
        if found := _local_path_in_value(value):
            raise PublicationError(
                f"Expected no paths of this machine in what is published but `{key}` in {name} has {found!r}. Remove it, "
                "or write a name there that means something elsewhere."
            )


def check_texts(texts: Iterable[str | None], place: str) -> None:
    """Look for credentials and local paths in the words of rows.

    Args:
        texts (`Iterable[str | None]`):
            The texts.
        place (`str`):
            Place of the texts, for the message.

    Raises:
        PublicationError: If there is one.
    """
    joined = _BETWEEN_TEXTS.join(filter(None, texts))
    check_secrets(joined, place)
    _check_path(_local_path_in_words(joined), place)


def check_document(text: str, place: str) -> None:
    """Look for credentials and local paths in a card, or another text that was written to be published.

    Raises:
        PublicationError: If there is one.
    """
    check_secrets(text, place)
    _check_path(_local_path_in_sentence(text), place)


def _check_path(found: str | None, place: str) -> None:
    if found:
        raise PublicationError(
            f"Expected no paths of this machine in what is published but {place} has {found!r}. Remove it; from a data set, "
            "in the annotations, and build again."
        )


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PublicationError(f"Expected JSON in {name} but cannot read it: {error}. Write it again.") from error


def _without_tokens(content: object) -> Any:
    if isinstance(content, dict):
        return {name: _without_tokens(value) for name, value in content.items() if name not in _OF_TOKENS}
    return [_without_tokens(value) for value in content] if isinstance(content, list) else content


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


def _local_path_in_words(text: str) -> str | None:
    """Find a path of this machine in a question, an answer or code."""
    found = _IN_WORDS.search(text)
    return found[0] if found else None


def _local_path_in_sentence(text: str) -> str | None:
    """Find a path of this machine in a card or a sentence of a configuration."""
    found = _IN_SENTENCES.search(text)
    return found[0] if found else None


def _local_path_in_value(text: str) -> str | None:
    """Find a path of this machine in a value of a configuration: the whole value, or a part of it."""
    return text if _ABSOLUTE.match(text) else _local_path_in_sentence(text)


def _texts_of(content: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text of JSON content, names of fields too, with the name of its field."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield key, name
            yield from _texts_of(value, f"{key}.{name}" if key else name)
    elif isinstance(content, list):
        for value in content:
            yield from _texts_of(value, key)
    elif isinstance(content, str):
        yield key, content


def without_folders(content: object) -> Any:
    """Replace each absolute path in JSON content by the name of its file."""
    if isinstance(content, dict):
        return {name: without_folders(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return last_name(content) if isinstance(content, str) else content


def last_name(text: str) -> str:
    """Cut an absolute path down to its last name; return any other text as it is."""
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if _ABSOLUTE.match(text) else text
