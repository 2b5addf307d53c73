"""The rule by which an answer counts as the one given before, as a table."""

import pytest

from storm_hf.evaluation.language import same_answer
from storm_hf.evaluation.language.agreement import first_sentence, repeats_itself, token_f1


ITALY = "What is the capital of Italy?"
SEASONS = "List the four seasons."


@pytest.mark.parametrize(
    ("before", "after", "prompt"),
    [
        ("Paris.", "paris", ""),
        ("The capital is Rome.", "The  capital\tis ROME!", ""),
        ("It's “cold”.", "It's cold", ""),
        ("Rome. It is old.", "Rome. It has many churches.", ""),
        ("Rome.", "The capital of Italy is Rome.", ITALY),
        ("The capital of Italy is Rome.", "Italy's capital is Rome, of course.", ITALY),
        ("1. Spring\n2. Summer", "- Spring\n- Summer", SEASONS),
        ("The four seasons are:\n1. Spring", "The four seasons are:\n\n1. Spring", SEASONS),
        ("A week has 7 days.", "There are 7 days in a week.", "How many days are there in a week?"),
        ("A week is approximately 7 days.", "A week is 7 days.", "How many days are there in a week?"),
        (
            "It is Mars.",
            "It is the planet in the solar system known as Mars.",
            "Which planet is known as the Red Planet?",
        ),
        ("It has 150 million km2.", "It has 150 million km2 (58 million square miles).", "How large is it?"),
        ("The Sun is a star.", "A star is the Sun.", "Is the Sun a star or a planet?"),
        (
            "A volcano is a natural phenomenon that occurs when magma, which is molten rock and ash, rises to the surface.",
            "A volcano is a natural phenomenon where molten rock, often ash and lava, rises from the surface.",
            "What is a volcano?",
        ),
        (
            "A baker is a person who makes bread, cakes and pastries.",
            "A baker is someone who makes bread, cakes and pastries.",
            "What does a baker do?",
        ),
    ],
)
def test_answers_that_say_the_same(before, after, prompt):
    assert same_answer(before, after, prompt)
    assert same_answer(after, before, prompt)


@pytest.mark.parametrize(
    ("before", "after", "prompt"),
    [
        ("Paris.", "Rome.", ""),
        ("The capital of Italy is Rome.", "The capital of Italy is Paris.", ITALY),
        ("The four seasons are:\n1. Spring", "The four seasons are:\n1. Monday", SEASONS),
        ("1. Spring\n2. Summer", "1. Spring\n2. Tuesday", SEASONS),
        ("1. Spring\n2. Summer", "1. Monday\n2. Tuesday", SEASONS),
        ("It boils at 100 degrees Celsius.", "It boils at 212 degrees Celsius.", "When does water boil?"),
        ("A whale is a fish.", "A whale is not a fish.", "Is a whale a fish?"),
        ("A whale is a fish.", "A whale isn't a fish.", "Is a whale a fish?"),
        ("The Sun is a star.", "The Sun is a planet.", "Is the Sun a star or a planet?"),
        ("Bees make honey.", "The ball moves from the red cup to the blue cup.", "What do bees make?"),
        ("Bees make honey.", "Bees.", "What do bees make?"),
        ("Honey and wax.", "Honey and milk.", "What do bees make?"),
        ("I can.", "It is.", "What can you do?"),
        ("The Sun is a star.", "The Sun is a star, but it is also a planet.", "Is the Sun a star or a planet?"),
        ("It is Mars.", "It is Venus and not Mars.", "Which planet is red?"),
        (
            'The sentence should be "She goes to school every day."',
            "She go to school every day.",
            'Correct this sentence: "She go to school every day."',
        ),
    ],
)
def test_answers_that_differ(before, after, prompt):
    assert not same_answer(before, after, prompt)
    assert not same_answer(after, before, prompt)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "...!?",
        "the cup the cup the cup the cup",
        "red red red red red red red red",
        "aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "It is here. It is here. It is here.",
        "1. A cat\n2. A cat\n3. A cat\n4. A cat",
        "The sea is the majestic and majestic: the majestic and majestic: the majestic and majestic: the",
    ],
)
def test_empty_and_looping_answers_are_never_the_same_even_as_themselves(answer):
    assert not same_answer(answer, answer)
    assert not same_answer("The cup.", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "No, no, no, I would not.",
        "It is very, very, very hot.",
        "There are 1000000000000 of them.",
        "Red, blue, red, blue, green.",
        "A rose is a rose is a flower.",
    ],
)
def test_repetition_for_emphasis_is_no_loop(answer):
    assert not repeats_itself(answer)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("Rome. It is old.", "Rome."),
        ('He said "Stop!" Then he left.', 'He said "Stop!'),
        ("It is 3.5 metres long. Yes.", "It is 3.5 metres long."),
        ("1. Apple\n2. Pear", "Apple; Pear"),
        ("Here are some:\n\n* Apple\n* Pear\n\nAll good.", "Here are some:; Apple; Pear"),
        ("Here is one:\nApple\nPear", "Here is one:\nApple"),
        ("...\nRome", "Rome"),
        ("", ""),
    ],
)
def test_first_sentence_ends_at_a_mark_or_a_line_and_not_at_a_colon(answer, sentence):
    assert first_sentence(answer) == sentence


def test_token_f1_is_the_mean_of_both_shares():
    assert token_f1(["a", "b"], ["b", "a"]) == 1
    assert token_f1(["a", "b", "c", "d"], ["a", "b", "c", "e"]) == 0.75
    assert token_f1(["a"], ["a", "b", "c"]) == 0.5
    assert token_f1([], ["a"]) == token_f1([], []) == 0
