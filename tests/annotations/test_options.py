import pytest

from storm_hf.annotations.options import find_answer, parse_options, split_question
from storm_hf.errors import DatasetError


def lettered(*texts):
    return dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", texts, strict=False))


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
        "['a cat' 'a dog']",
        '["a cat"\n "a dog"]',
        "['a cat' 'a dog' None nan]",
        "array(['a cat', 'a dog'], dtype=object)",
        "A. a cat\nB. a dog\n",
        "a cat | a dog",
    ],
)
def test_options_are_read_without_letters_however_they_are_written(value):
    assert parse_options(value, "|") == {"A": "a cat", "B": "a dog"}


@pytest.mark.parametrize("value", [None, "", [], {}, "  ", [None, None]])
def test_no_options_are_an_open_question(value):
    assert parse_options(value, "|") == {}


@pytest.mark.parametrize("options", [("A. Lincoln", "J. Adams"), ("U.S. army", "a cat"), ("B. first", "A. second")])
def test_letters_that_do_not_count_up_belong_to_the_options(options):
    assert tuple(parse_options(list(options), "|").values()) == options


def test_text_that_only_looks_like_a_list_is_split():
    assert parse_options("[red]|[blue", "|") == {"A": "[red]", "B": "[blue"}


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ({"C": "a dog", "B": "a cat"}, "BC"),
        ({"A": None, "B": "a cat", "C": "a dog"}, "BC"),  # Arrow fills the keys that other rows have
        ({10: "a dog", 9: "a cat"}, ["9", "10"]),
        ({"option 10": "a dog", "option 2": "a cat"}, ["option 2", "option 10"]),
        ({"B": "B. a cat", "C": "C. a dog"}, "BC"),
        ({"A": "(A) a cat", "B": "(B) a dog"}, "AB"),
    ],
)
def test_labels_of_a_mapping_are_kept_in_their_natural_order(value, labels):
    assert parse_options(value, "|") == dict(zip(labels, ("a cat", "a dog"), strict=True))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["red", "red", "blue"], "A and B are the same, 'red'"),
        ({"1": "red", "3": "red"}, "1 and 3 are the same"),
        (["red"], "a single option, 'red'"),
        ("red", "a single option"),
        ("['red']", "a single option"),
        (["red", None, "blue"], "option B is empty"),
        ("['red' 'blue', 'green']", "neither JSON nor Python"),  # Python would read "redblue"
        ("{'text': array(['red', 'blue'])}", "neither JSON nor Python"),
    ],
)
def test_options_among_which_no_one_can_choose_are_refused(value, message):
    with pytest.raises(DatasetError, match=message):
        parse_options(value, "|")


def test_quotes_inside_of_an_option_are_no_neighbours():
    assert parse_options("""['say "a" "b"', 'x']""", "|") == {"A": 'say "a" "b"', "B": "x"}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who?\nA. he\nB. she", ("Who?", {"A": "he", "B": "she"})),
        ("Who?\n(A) he\n(B) she\n", ("Who?\n(A) he\n(B) she\n", {})),  # the blank line at the end is no option
        ("Who?\nA. he", ("Who?\nA. he", {})),
        ("Who?\nB. he\nA. she", ("Who?\nB. he\nA. she", {})),
        ("Which?\nCaption A: he\nCaption B: she", ("Which?", {"Caption A": "he", "Caption B": "she"})),
        ("Which?\nOption 1: he\nOption 2: she", ("Which?", {"Option 1": "he", "Option 2": "she"})),
        ("Which?\nOption 1: he\nCaption B: she", ("Which?\nOption 1: he\nCaption B: she", {})),
        ("Who comes?", ("Who comes?", {})),
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
    assert find_answer(answer, lettered("a cat", "a dog", "a bird"), form) == "a dog"


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
    assert find_answer(answer, lettered(*options), form) == expected


@pytest.mark.parametrize(
    ("answer", "form", "message"),
    [
        ("3", "index", "an index from 0 to 2 but is '3'"),
        ("-1", "index", "an index from 0 to 2 but is '-1'"),
        ("9" * 5000, "index", "an index from 0 to 2"),
        ("B", "text", "not among the 3 options"),
        ("1", "auto", "not among the 3 options"),
        ("E", "auto", "The answer E is none of the options A, B, C."),
    ],
)
def test_answer_that_means_no_option_says_why(answer, form, message):
    with pytest.raises(DatasetError, match=message):
        find_answer(answer, lettered("a cat", "a dog", "a bird"), form)


NUMBERED = {str(number): f"option {number}" for number in range(12)}


@pytest.mark.parametrize(
    ("answer", "options", "form", "expected"),
    [
        ("B", {"B": "x", "C": "y"}, "auto", "x"),
        ("b", {"B": "x", "C": "y"}, "letter", "x"),
        ("(C)", {"B": "x", "C": "y"}, "letter", "y"),
        ("C. y", {"B": "x", "C": "y"}, "auto", "y"),
        ("2", {"B": "x", "C": "y"}, "index", "y"),
        ("B", {"a": "x", "b": "y"}, "auto", "y"),
        ("2", NUMBERED, "index", "option 2"),
        ("10", NUMBERED, "auto", "option 10"),
        ("2", {"1": "x", "2": "y"}, "auto", "y"),
        ("B", {"option 9": "x", "option 10": "y"}, "auto", "y"),
        ("Caption B: y", {"Caption A": "x", "Caption B": "y"}, "auto", "y"),
        ("L", lettered(*"zyxwvutsrqponm"), "letter", "o"),
        ("red", {"A": "Red", "B": "red"}, "auto", "red"),
        ("U.S.", {"A": "U.S", "B": "U.S."}, "text", "U.S."),
        ("B. u.s.", {"A": "U.S", "B": "U.S."}, "auto", "U.S."),
    ],
)
def test_answer_is_the_option_that_its_label_or_its_exact_text_names(answer, options, form, expected):
    assert find_answer(answer, options, form) == expected


@pytest.mark.parametrize(
    ("answer", "options", "form", "message"),
    [
        ("A", {"B": "x", "C": "y"}, "auto", "A is none of the options B, C"),
        ("0", {"B": "x", "C": "y"}, "index", "an index from 1 to 2"),
        ("RED", {"A": "Red", "B": "red"}, "auto", "may be option A or B"),
        ("u.s", {"A": "U.S", "B": "U.S."}, "text", "may be option A or B"),
        ("B", {"A": "B. x", "B": "C. y"}, "auto", "another one begins with it"),
        ("2", {"1": "2", "2": "1"}, "auto", "the letter of one option and the text of another"),
        ("A. a dog", {"A": "a cat", "B": "a dog"}, "auto", "the letter A but the text of B"),
    ],
)
def test_answer_that_may_be_two_options_is_refused(answer, options, form, message):
    with pytest.raises(DatasetError, match=message):
        find_answer(answer, options, form)
