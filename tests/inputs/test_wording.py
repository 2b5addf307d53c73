"""The wording of questions and answers."""

import pytest

from storm_hf.errors import DatasetError
from storm_hf.worlds import format_answer, format_question, split_words


OPTIONS = ("red", "blue", "green", "yellow")


def test_question_in_words():
    assert format_question("Where?", OPTIONS) == "Where? Answer with one word: red, blue, green or yellow."
    assert format_answer("blue", OPTIONS) == "blue"


def test_question_in_letters_and_its_answer():
    text = format_question("Where?", OPTIONS, style="letters")
    assert text.splitlines() == [
        "Where?",
        "A. red",
        "B. blue",
        "C. green",
        "D. yellow",
        "Answer with the letter of one option.",
    ]
    letter = format_answer("green", OPTIONS, style="letters")
    assert f"{letter}. green" in text.splitlines()


def test_question_alone():
    assert format_question("Where?", OPTIONS, style="none") == "Where?"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: format_question("Where?", OPTIONS, style="rhyme"), "words, letters or none but got 'rhyme'"),
        (lambda: format_question("Where?", OPTIONS[:1]), "2 to 26 options but got 1: red"),
        (lambda: format_question("Where?", [*OPTIONS, "blue"]), "options that differ but got 'blue' twice"),
        (lambda: format_question("Where?", ["left", ""], style="letters"), "is empty"),
        (lambda: format_answer("pink", OPTIONS), "got 'pink'"),
    ],
)
def test_unknown_style_option_or_answer_is_refused(call, words):
    with pytest.raises(DatasetError, match=words):
        call()


def test_text_is_split_at_spaces_and_punctuation():
    assert split_words("Answer with: red, blue.") == ["Answer", "with", ":", "red", ",", "blue", "."]
