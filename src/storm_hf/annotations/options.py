"""Options of multiple-choice questions: strip their labels, resolve the answer.

What cannot be used raises a [`DatasetError`]; its message is the reason that the row is rejected with.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from storm_hf.annotations.layout import AnswerForm, is_absent, shown, text_of
from storm_hf.errors import DatasetError


_LETTERED = re.compile(
    r"(?:\(([A-Z])\)|([A-Z])(?=[.):]))[.):]*\s*(.*)", re.DOTALL
)  # "A. a cat", "(A) a cat", "(A): a cat"
_CAPTIONED = re.compile(r"((?:Caption|Option|Sentence) (?:[A-Z]|\d+)):\s*(.*)", re.DOTALL)  # "Caption A: a cat"
_LONE_LETTER = re.compile(r"\(?([A-Za-z])\)?[.):]*")
_DIGITS = re.compile(r"(\d+)")


def parse_options(value: object, separator: str) -> dict[str, str]:
    """Read options from a list, from a mapping of labels, or from one text.

    Args:
        value (`Any`):
            `["A. a cat", "B. a dog"]`, `{"A": "a cat", "B": "a dog"}`, the same written as JSON, as Python or as numpy writes
            it, one option per line, or options with a separator between them. None or nothing means an open question.
        separator (`str`):
            Separator between options that are one line.

    Returns:
        `dict[str, str]`: From the label of each option to its text. A mapping keeps its labels, in their natural order; a
        list has the letters from A, which its texts lose where they are the same.

    Raises:
        DatasetError: If an option is no text, empty with others behind it, alone, or there twice.
    """
    if isinstance(value, str):
        value = _parse_printed(value.strip(), separator)
    if isinstance(value, Mapping):
        labelled = {str(label): option for label, option in value.items() if not is_absent(option)}
        return _checked(_without_labels({label: labelled[label] for label in sorted(labelled, key=_natural)}))
    if is_absent(value):
        return {}
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise DatasetError(f"The options should be a list but are {shown(value)}.")
    texts = ["" if is_absent(option) else option for option in value]
    while texts and texts[-1] == "":  # a table has as many places for options as its longest question needs
        texts.pop()
    return _checked(_without_labels({_letter(index): text for index, text in enumerate(texts)}))


def split_question(question: str) -> tuple[str, dict[str, str]]:
    """Split a question whose last lines are its options, with labels that count up from A or 1.

    Returns:
        `tuple[str, dict[str, str]]`: The question and its options, none where the last lines are something else.
    """
    lines = question.split("\n")
    first = len(lines)
    while first and _labelled(lines[first - 1].strip()):
        first -= 1
    found = [labelled for line in lines[first:] if (labelled := _labelled(line.strip()))]
    if len(found) < 2 or not _count_up([label for label, _ in found]):
        return question, {}
    return "\n".join(lines[:first]).strip(), _checked(dict(found))


def find_answer(answer: str, options: Mapping[str, str], form: AnswerForm) -> str:
    """Find the text of the correct option.

    Args:
        answer (`str`):
            As the row states it: `B`, `(B)`, `B. a dog`, `a dog`, or `1`.
        options (`Mapping[str, str]`):
            From labels to texts, as [`parse_options`] gives them; none where the question is open.
        form (`str`):
            See [`Layout`].

    Raises:
        DatasetError: If no option is meant, or more than one may be.
    """
    is_letter = _LONE_LETTER.fullmatch(answer) is not None
    if not options:
        if is_letter and form == "letter":
            raise DatasetError(f"The answer is the letter {answer!r} but the question has no options.")
        return answer
    if form == "index":
        return options[_by_index(answer, options)]
    label = None if form == "text" else _label_of(answer, options)
    same_text = _with_text(answer, options)
    if label is not None:
        return options[_by_label(label, same_text if form == "auto" else [], options)]
    if is_letter and form != "text" and (form == "letter" or not same_text):
        raise _beyond(answer, options)
    if len(same_text) > 1:
        raise DatasetError(
            f"The answer {shown(answer)} may be option {' or '.join(same_text)}, which differ in case or marks."
        )
    if same_text:
        return options[same_text[0]]
    if form != "text" and (stated := _labelled(answer)):
        return options[_by_label_and_text(*stated, options)]
    raise DatasetError(f"The answer {shown(answer)} is not among the {len(options)} options.")


def _without_labels(options: Mapping[str, Any]) -> dict[str, str]:
    """Strip the labels that texts begin with, if each is the option's own; else they belong to the texts."""
    texts = {label: text_of(option, f"option {label}") for label, option in options.items()}
    stated = {label: _labelled(text) for label, text in texts.items()}
    if all(parts is not None and parts[0] == label for label, parts in stated.items()):
        return {label: text_of(parts[1], f"option {label}") for label, parts in stated.items() if parts}
    return texts


def _checked(options: dict[str, str]) -> dict[str, str]:
    if len(options) == 1:
        raise DatasetError(f"The question has a single option, {shown(*options.values())}.")
    label_of: dict[str, str] = {}
    for label, text in options.items():
        if label_of.setdefault(text, label) != label:
            raise DatasetError(f"The options {label_of[text]} and {label} are the same, {shown(text)}.")
    return options


def _labelled(text: str) -> tuple[str, str] | None:
    """Label and text of `A. a cat` or `Caption A: a cat`, None where there is no label."""
    if match := _LETTERED.fullmatch(text):
        return match[1] or match[2], match[3]
    match = _CAPTIONED.fullmatch(text)
    return (match[1], match[2]) if match else None


def _count_up(labels: Sequence[str]) -> bool:
    """Tell labels from A or from 1, each the next, from others."""
    kind = labels[0][:-1]
    return any(list(labels) == [f"{kind}{nth(index)}" for index in range(len(labels))] for nth in (_letter, _number))


def _by_index(answer: str, options: Mapping[str, str]) -> str:
    number = answer.removesuffix(".0")  # tables write whole numbers so where a cell of the column is empty
    label_of = _numbered(options)
    if number not in label_of:
        numbers = list(label_of)
        raise DatasetError(f"The answer should be an index from {numbers[0]} to {numbers[-1]} but is {shown(answer)}.")
    return label_of[number]


def _numbered(options: Mapping[str, str]) -> dict[str, str]:
    """Labels by their numbers: those that they are, those that letters have from A, else those of the order, from 0."""
    if all(label.isdecimal() for label in options):
        return {label: label for label in options}
    if _are_letters(options):
        return {str(ord(label.upper()) - ord("A")): label for label in options}
    return {str(place): label for place, label in enumerate(options)}


def _label_of(answer: str, options: Mapping[str, str]) -> str | None:
    """The label that an answer is, in any case; a letter counts from A where labels are no letters."""
    match = _LONE_LETTER.fullmatch(answer)
    stated = match[1] if match else answer
    for name in (stated, stated.upper(), stated.lower()):
        if name in options:
            return name
    place = ord(stated.upper()) - ord("A") if match else len(options)
    return None if _are_letters(options) or place >= len(options) else list(options)[place]


def _by_label(label: str, same_text: Sequence[str], options: Mapping[str, str]) -> str:
    """An answer that is a label, and may also be the text of an option, or the letter that one begins with."""
    if same_text and label not in same_text:
        raise DatasetError(
            f"The answer {label} is the letter of one option and the text of another. Say which is meant with "
            "`answer_form` in the layout."
        )
    begins = [other for other, text in options.items() if (parts := _labelled(text)) and parts[0] == label]
    if begins and begins != [label]:
        raise DatasetError(f"The answer {label} is the letter of one option, and another one begins with it.")
    return label


def _by_label_and_text(stated: str, text: str, options: Mapping[str, str]) -> str:
    label = _label_of(stated, options)
    if label is None:
        raise _beyond(stated, options)
    same_text = _with_text(text, options)
    if same_text and label not in same_text:
        raise DatasetError(f"The answer has the letter {label} but the text of {same_text[0]}.")
    return label


def _beyond(answer: str, options: Mapping[str, str]) -> DatasetError:
    return DatasetError(f"The answer {answer} is none of the options {', '.join(options)}.")


def _with_text(text: str, options: Mapping[str, str]) -> list[str]:
    """The labels of the options with a text: exactly this one, else the same but for case and a full stop."""
    exact = [label for label, option in options.items() if option.strip() == text.strip()]
    return exact or [label for label, option in options.items() if _folded(option) == _folded(text)]


def _folded(text: str) -> str:
    return text.strip().rstrip(".").casefold()


def _are_letters(labels: Iterable[str]) -> bool:
    return all(len(label) == 1 and label.isascii() and label.isalpha() for label in labels)


def _natural(label: str) -> list[tuple[bool, int, str]]:
    """Order labels as people count: 2 before 10, A before b."""
    parts = [part for part in _DIGITS.split(label) if part]
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts]


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else _number(index)


def _number(index: int) -> str:
    return str(index + 1)


_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?"
_ITEM = re.compile(rf"{_QUOTED}|{_NUMBER}|None|nan", re.DOTALL)
_NUMPY = re.compile(rf"\[\s*(?:{_ITEM.pattern})(?:\s+(?:{_ITEM.pattern}))*\s*\]", re.DOTALL)  # ['a cat' 'a dog']
_REPR = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^()\[\]]*)?\)", re.DOTALL)  # array(['a cat', 'a dog'], dtype=object)
_TEXT = re.compile(_QUOTED, re.DOTALL)
_BRACKETS = {"[": "]", "{": "}"}


def _parse_printed(text: str, separator: str) -> Any:
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
