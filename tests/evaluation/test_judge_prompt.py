import pytest

from storm_hf.evaluation.judges import judge_prompt, read_verdict
from storm_hf.evaluation.scorers import Question


CHOICE = Question("Which way?", ("left", "right"), answer="B")
CAPTION = Question("Which way?", ("left", "right"), answer="B", kind="captioning")
OPEN = Question("What is it?", (), answer="DNA", kind="open-ended")


@pytest.mark.parametrize(
    ("verdict", "is_correct"),
    [
        ("Correct", True),
        ("correct.", True),
        ("Incorrect", False),
        ("INCORRECT, since it goes left", False),
        ("The answer is not correct", False),
        ("The prediction is correct.", True),
        ("Incorrectly put", None),
        ("", None),
        ("yes", None),
    ],
)
def test_a_verdict_on_an_answer(verdict, is_correct):
    assert read_verdict(CHOICE, verdict) is is_correct


@pytest.mark.parametrize(
    ("verdict", "is_correct"),
    [
        ("Answer: B", True),
        ("Answer: B. right", True),
        ("It moves.\nAnswer: (B)", True),
        ("Answer: A", False),
        ("Answer: none", False),
        ("Answer: Both", False),
        ("Answer: A\nAnswer: B: right", True),
        ("B", None),
        ("", None),
    ],
)
def test_a_verdict_on_a_caption(verdict, is_correct):
    assert read_verdict(CAPTION, verdict) is is_correct


def test_a_prompt_has_question_options_right_answer_and_completion():
    prompt = judge_prompt(CHOICE, "to the right")
    assert all(
        part in prompt for part in ("Which way?", "A: left", "B: right", "Right answer: B: right", "to the right")
    )


def test_the_judge_of_a_caption_is_not_told_the_right_option():
    prompt = judge_prompt(CAPTION, "It rolls.")
    assert "Right answer" not in prompt
    assert "It rolls." in prompt


def test_an_open_question_has_no_options_and_its_own_rule():
    prompt = judge_prompt(OPEN, "RNA")
    assert "Right answer: DNA" in prompt
    assert "same concept" in prompt
    assert "same concept" not in judge_prompt(CHOICE, "B")


def test_braces_in_an_answer_are_no_placeholders():
    assert r"\boxed{question}" in judge_prompt(OPEN, r"\boxed{question}")
