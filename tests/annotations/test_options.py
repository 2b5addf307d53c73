import pytest

from storm_hf.annotations.options import find_answer, parse_options, split_question
from storm_hf.errors import DatasetError


@pytest.mark.parametrize(
    "value",
    [
        ["A. a cat", "B. a dog"],
        ["(A) a cat", "(B) a dog"],
        ["(A): a cat", "(B): a dog"],
        ["A) a cat", "B) a dog"],
        ["a cat", "a dog", None, float("nan"), " "],
        {"B": "a dog", "A": "a cat", "C": None},
        '["A. a cat", "B. a dog"]',
        "['a cat', 'a dog']",
        '{"A": "a cat", "B": "a dog"}',
        "A. a cat\nB. a dog\n",
        "a cat | a dog",
    ],
)
def test_options_are_read_without_letters_however_they_are_written(value):
    assert parse_options(value, "|") == ("a cat", "a dog")


@pytest.mark.parametrize("value", [None, "", [], {}, "  ", [None, None]])
def test_no_options_are_an_open_question(value):
    assert parse_options(value, "|") == ()


@pytest.mark.parametrize("options", [("A. Lincoln", "J. Adams"), ("U.S. army", "a cat"), ("B. first", "A. second")])
def test_letters_that_do_not_count_up_belong_to_the_options(options):
    assert parse_options(list(options), "|") == options


def test_text_that_only_looks_like_a_list_is_split():
    assert parse_options("[red]|[blue", "|") == ("[red]", "[blue")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who?\nA. he\nB. she", ("Who?", ("he", "she"))),
        ("Who?\n(A) he\n(B) she\n", ("Who?\n(A) he\n(B) she\n", ())),  # the blank line at the end is no option
        ("Who?\nA. he", ("Who?\nA. he", ())),
        ("Who?\nB. he\nA. she", ("Who?\nB. he\nA. she", ())),
        ("Who comes?", ("Who comes?", ())),
    ],
)
def test_question_is_split_only_where_its_last_lines_are_options(question, expected):
    assert split_question(question) == expected


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("B", "auto"),
        ("b", "auto"),
        ("(B)", "letter"),
        ("B.", "letter"),
        ("B. a dog", "auto"),
        ("(B) A dog.", "letter"),
        ("B) because it barks", "letter"),
        ("a dog", "auto"),
        ("A Dog.", "text"),
        ("1", "index"),
        ("1.0", "index"),
    ],
)
def test_answer_is_found_by_letter_text_or_index(answer, form):
    assert find_answer(answer, ("a cat", "a dog", "a bird"), form) == "a dog"


@pytest.mark.parametrize(
    ("answer", "options", "form", "expected"),
    [
        ("A", ("B", "A"), "letter", "B"),
        ("A", ("B", "A"), "text", "A"),
        ("A", ("A", "B"), "auto", "A"),
        ("K", ("J", "K"), "auto", "K"),
        ("U.S. army", ("a cat", "U.S. army"), "letter", "U.S. army"),
        ("a dog", (), "auto", "a dog"),
        ("B", (), "auto", "B"),
    ],
)
def test_answer_that_may_be_letter_or_text_is_read_as_the_layout_says(answer, options, form, expected):
    assert find_answer(answer, options, form) == expected


@pytest.mark.parametrize(
    ("answer", "form", "message"),
    [
        ("3", "index", "an index from 0 to 2 but is '3'"),
        ("-1", "index", "an index from 0 to 2 but is '-1'"),
        ("9" * 5000, "index", "an index from 0 to 2"),
        ("B", "text", "not among the 3 options"),
        ("1", "auto", "not among the 3 options"),
        ("E", "auto", "The answer E is beyond the options, which end at C."),
    ],
)
def test_answer_that_means_no_option_says_why(answer, form, message):
    with pytest.raises(DatasetError, match=message):
        find_answer(answer, ("a cat", "a dog", "a bird"), form)
