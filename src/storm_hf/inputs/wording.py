"""Wording of questions, answers and captions, within a small vocabulary."""

import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase
from typing import Literal

from storm_hf.errors import DatasetError


QuestionStyle = Literal["words", "letters", "none"]

# fmt: off
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
ORDINAL_WORDS = (
    "zeroth", "first", "second", "third", "fourth", "fifth", "sixth",
    "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth",
)
# fmt: on
LETTERS = ascii_uppercase
# Columns of a row whose question is complete, besides those of any: `storm_hf.worlds.Asked`.
ASKED_COLUMNS = ("usual_question", "choices", "choice_style", "outcome", "spoken_chain")
_WORD_REQUEST = "Answer with one word:"
_LETTER_REQUEST = "Answer with the letter of one option."
_TOKEN = re.compile(r"\w+|[^\w\s]")


def format_question(question: str, options: Sequence[str], style: QuestionStyle = "words") -> str:
    """Write the question as a user asks it.

    Args:
        question (`str`):
            Ends in a question mark.
        options (`Sequence[str]`):
            The closed set of answers.
        style (`str`, *optional*, defaults to `"words"`):
            `words` names the options in a sentence, `letters` lists them as A., B., ..., `none` leaves them out.

    Returns:
        `str`: The text of the user's turn. `format_answer` gives the reply that belongs to it.
    """
    _check_style(style, options)
    if style == "none":
        return question
    if style == "letters":
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        return "\n".join([question, *lines, _LETTER_REQUEST])
    return f"{question} {_WORD_REQUEST} {', '.join(options[:-1])} or {options[-1]}."


def format_answer(answer: str, options: Sequence[str], style: QuestionStyle = "words") -> str:
    """Write the reply to a question of the same style: the word itself, or its letter."""
    _check_style(style, options)
    if answer not in options:
        raise DatasetError(f"Expected one of the options {', '.join(options)} but got {answer!r}.")
    return LETTERS[list(options).index(answer)] if style == "letters" else answer


def number_pairs(descriptions: Iterable[str], first: int) -> str:
    """Join what each frame pair shows into a caption, each part led by its number in words."""
    return " ".join(f"{NUMBER_WORDS[first + pair]} {words} ." for pair, words in enumerate(descriptions))


def split_words(text: str) -> list[str]:
    """Split text into words and punctuation marks, the units of `World.vocabulary`."""
    return _TOKEN.findall(text)


def wording(options: Sequence[str], *texts: str) -> tuple[str, ...]:
    """Collect every word of some texts, of the numbers, and of all question styles, sorted."""
    styles: tuple[QuestionStyle, ...] = ("words", "letters")
    asked = [format_question("?", options, style) for style in styles]
    words = split_words(" ".join([*NUMBER_WORDS, ".", ",", *options, *texts, *asked]))
    return tuple(sorted(set(words)))


def _check_style(style: str, options: Sequence[str]) -> None:
    if style not in ("words", "letters", "none"):
        raise DatasetError(f"Expected the style words, letters or none but got {style!r}.")
    check_options(options)


def check_options(options: Sequence[str]) -> None:
    """Check that options can be told apart, by their text and by their letter.

    Raises:
        DatasetError: If there is one alone, more than there are letters, or one twice.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise DatasetError(f"Expected 2 to {len(LETTERS)} options but got {len(options)}: {', '.join(options[:3])}.")
    if not all(option.strip() for option in options):
        raise DatasetError(f"Expected options with a text each but one of {list(options)} is empty. Leave it out.")
    if repeated := [option for place, option in enumerate(options) if option in options[:place]]:
        raise DatasetError(f"Expected options that differ but got {repeated[0]!r} twice. Leave one of them out.")
