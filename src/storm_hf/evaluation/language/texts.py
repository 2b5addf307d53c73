"""Plain prompts and plain prose, written for this package: a part to train on, and another to measure on.

    prompts.txt           short questions and instructions without a picture, one a line, their kinds mixed
    held_out.txt          others of the same kinds, none of them a paraphrase of one above
    plain_training.txt    prose, its paragraphs separated by blank lines
    plain_text.txt        prose about other subjects

The files lie in `texts/`.
"""

import re
from importlib.resources import files
from pathlib import Path

from storm_hf.errors import DatasetError


_PACKAGE = "storm_hf.evaluation.language"


def read_training_prompts() -> list[str]:
    """Read the prompts that may be trained on."""
    return split_lines(_shipped("prompts.txt"))


def read_held_out_prompts() -> list[str]:
    """Read the prompts that are asked before and after training, and never trained on."""
    return split_lines(_shipped("held_out.txt"))


def read_training_texts() -> list[str]:
    """Read the paragraphs that may be trained on."""
    return split_paragraphs(_shipped("plain_training.txt"))


def read_held_out_texts() -> list[str]:
    """Read the paragraphs whose perplexity is measured, and which are never trained on."""
    return split_paragraphs(_shipped("plain_text.txt"))


def read_prompts(path: str | Path) -> list[str]:
    """Read a file of prompts, one a line; blank lines are left out.

    Raises:
        DatasetError: If the file cannot be read, or holds none.
    """
    return _filled(split_lines(_read(path)), path, "a prompt a line")


def read_texts(path: str | Path) -> list[str]:
    """Read a file of plain text, its paragraphs separated by blank lines.

    Raises:
        DatasetError: If the file cannot be read, or holds none.
    """
    return _filled(split_paragraphs(_read(path)), path, "paragraphs of plain text")


def split_lines(text: str) -> list[str]:
    """Split a text into its lines, without blank ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def split_paragraphs(text: str) -> list[str]:
    """Split a text at blank lines; each paragraph becomes one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _shipped(name: str) -> str:
    return files(_PACKAGE).joinpath("texts", name).read_text(encoding="utf-8")


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DatasetError(f"{path} cannot be read: {reason}. Name a text file.") from error


def _filled(parts: list[str], path: str | Path, expected: str) -> list[str]:
    if not parts:
        raise DatasetError(f"Expected {expected} in {path}, but it is empty. Write some into it.")
    return parts
