"""Options and answers of multiple-choice questions: letters off, and the right one found.

What cannot be used raises a [`DatasetError`]; its message is the reason that the row is rejected with.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from storm_hf.annotations.fields import is_absent, shown, text_of
from storm_hf.annotations.layout import AnswerForm
from storm_hf.errors import DatasetError


_LETTERED = re.compile(
    r"(?:\(([A-Z])\)|([A-Z])(?=[.):]))[.):]*\s*(.*)", re.DOTALL
)  # "A. a cat", "(A) a cat", "(A): a cat"
_LONE_LETTER = re.compile(r"\(?([A-Za-z])\)?[.):]*")


def parse_options(value: Any, separator: str) -> tuple[str, ...]:
    """Read options from a list, from a mapping of letters, or from one text.

    Args:
        value (`Any`):
            `["A. a cat", "B. a dog"]`, `{"A": "a cat", "B": "a dog"}`, the same written as JSON or as Python writes it,
            one option per line, or options with a separator between them. None or nothing means an open question.
        separator (`str`):
            What stands between options that are one line.

    Returns:
        `tuple[str, ...]`: Their texts without letters; the letters go only where they count up from A.

    Raises:
        DatasetError: If an option is no text, or empty with others behind it.
    """
    if isinstance(value, str):
        value = _split(value.strip(), separator)
    if isinstance(value, Mapping):
        value = [value[letter] for letter in sorted(value, key=str)]
    if is_absent(value):
        return ()
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise DatasetError(f"The options should be a list but are {shown(value)}.")
    texts = ["" if is_absent(option) else option for option in value]
    while texts and texts[-1] == "":  # a table has as many places for options as its longest question needs
        texts.pop()
    return without_letters([text_of(option, f"option {_letter(index)}") for index, option in enumerate(texts)])


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Take the letters off options, if they are A, B, C and so on; else they belong to the texts."""
    matches = [_LETTERED.fullmatch(option) for option in options]
    if all(match and (match[1] or match[2]) == _letter(index) for index, match in enumerate(matches)):
        return tuple(text_of(match[3], f"option {_letter(index)}") for index, match in enumerate(matches) if match)
    return tuple(options)


def split_question(question: str) -> tuple[str, tuple[str, ...]]:
    """Split a question whose last lines are its options, with letters that count up from A.

    Returns:
        `tuple[str, tuple[str, ...]]`: The question and its options, none where the last lines are something else.
    """
    lines = question.split("\n")
    first = len(lines)
    while first and _LETTERED.fullmatch(lines[first - 1].strip()):
        first -= 1
    options = [line.strip() for line in lines[first:]]
    bare = without_letters(options)
    if len(options) < 2 or bare == tuple(options):
        return question, ()
    return "\n".join(lines[:first]).strip(), bare


def find_answer(answer: str, options: Sequence[str], form: AnswerForm) -> str:
    """Find the text of the right answer.

    Args:
        answer (`str`):
            As the row states it: `B`, `(B)`, `B. a dog`, `a dog`, or `1`.
        options (`Sequence[str]`):
            Texts of the options; none where the question is open.
        form (`str`):
            See [`Layout`].

    Raises:
        DatasetError: If no option is meant, or more than one may be.
    """
    lone = _LONE_LETTER.fullmatch(answer)
    if not options:
        if lone and form == "letter":
            raise DatasetError(f"The answer is the letter {answer!r} but the question has no options.")
        return answer
    if form == "index":
        return _by_index(answer, options)
    same_text = _position(answer, options)
    if lone and form != "text":
        return _by_letter(lone[1].upper(), same_text, options, form)
    if same_text is not None:
        return options[same_text]
    if form != "text" and (lettered := _LETTERED.fullmatch(answer)):
        return _by_letter_and_text(lettered[1] or lettered[2], lettered[3], options)
    raise DatasetError(f"The answer {shown(answer)} is not among the {len(options)} options.")


def _by_index(answer: str, options: Sequence[str]) -> str:
    number = answer.removesuffix(".0")  # tables write whole numbers so where a cell of the column is empty
    places = [str(index) for index in range(len(options))]
    if number not in places:
        raise DatasetError(f"The answer should be an index from 0 to {len(options) - 1} but is {shown(answer)}.")
    return options[places.index(number)]


def _by_letter(letter: str, same_text: int | None, options: Sequence[str], form: AnswerForm) -> str:
    """An answer that is a letter, and may also be the text of an option."""
    index = ord(letter) - ord("A")
    if form == "auto" and same_text is not None:
        if index < len(options) and index != same_text:
            raise DatasetError(
                f"The answer {letter} is the letter of one option and the text of another. Say which is meant with "
                "`answer_form` in the layout."
            )
        return options[same_text]
    return options[_checked(index, options)]


def _by_letter_and_text(letter: str, text: str, options: Sequence[str]) -> str:
    index = _checked(ord(letter) - ord("A"), options)
    other = _position(text, options)
    if other not in (None, index):
        raise DatasetError(f"The answer has the letter {letter} but the text of {_letter(other or 0)}.")
    return options[index]


def _checked(index: int, options: Sequence[str]) -> int:
    if index >= len(options):
        raise DatasetError(
            f"The answer {_letter(index)} is beyond the options, which end at {_letter(len(options) - 1)}."
        )
    return index


def _position(text: str, options: Sequence[str]) -> int | None:
    """Where a text stands among the options; case and a full stop do not matter."""
    plain = [option.strip().rstrip(".").casefold() for option in options]
    wanted = text.strip().rstrip(".").casefold()
    return plain.index(wanted) if wanted in plain else None


def _split(text: str, separator: str) -> Any:
    """Options that are one text: a list or mapping as JSON or Python writes it, lines, or parts with a separator."""
    if text[:1] in ("[", "{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
    parts = text.splitlines() if "\n" in text else text.split(separator)
    return [part for part in parts if part.strip()]


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)
