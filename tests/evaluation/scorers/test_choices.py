"""Reading of the same answer by each scorer. A dash is an answer that it cannot read."""

import pytest

from storm_hf.evaluation.scorers import Question, read_answer


COLOURS = Question("Which colour is the kite?", ("red", "a green kite", "blue", "none of the above"), answer="B")

# answer, official Video-MME, lmms Video-MME, official MVBench, lmms MVBench, strict
CHOICES = [
    ("B", "B", "B", "B", "B", "B"),
    ("B.", "B", "B", "B", "B", "B"),
    ("(B)", "B", "B", "B", "B", "B"),
    ("(B) a green kite", "B", "B", "B", "B", "B"),
    ("(b)", "-", "-", "B", "B", "B"),
    ("b", "-", "-", "B", "B", "B"),
    ("**B**", "B", "B", "-", "B", "B"),
    ("B. a green kite", "B", "B", "B", "B", "B"),
    ("B: a green kite", "B", "B", "-", "B", "B"),
    ("B) a green kite", "B", "B", "B", "B", "B"),
    ("B - a green kite", "B", "B", "B", "B", "B"),
    ("B\nsince it is green", "B", "B", "B", "B", "B"),
    ("B</s>", "B", "B", "-", "B", "B"),
    ("B<|im_end|>", "B", "B", "-", "B", "B"),
    ("", "-", "-", "?", "-", "-"),
    ("   ", "-", "-", "?", "-", "-"),
    ("(", "-", "-", "?", "-", "-"),
    ("no idea", "-", "-", "-", "-", "-"),
    ("a green kite", "-", "-", "A", "A", "B"),
    ("A green kite", "A", "A", "A", "A", "B"),
    ("A man walks; the answer is D", "A", "A", "A", "A", "D"),
    ("A man walks.", "A", "A", "A", "A", "-"),
    ("The answer is a man", "-", "-", "-", "A", "-"),
    ("The answer is A man", "A", "A", "-", "A", "-"),
    ("The answer is C.", "C", "C", "-", "C", "C"),
    ("The best option is (C)", "C", "C", "-", "C", "C"),
    ("Best option: D", "B", "D", "-", "D", "D"),
    ("Answer: D", "A", "D", "-", "D", "D"),
    ("None of the above", "-", "-", "-", "-", "D"),
    ("I do not know", "-", "-", "-", "-", "-"),
    ("Both A and B", "B", "B", "-", "A", "-"),
    ("A, B", "A", "A", "-", "A", "-"),
    ("A. red\nB. a green kite", "A", "A", "A", "A", "-"),
    ("B. blue", "B", "B", "B", "B", "-"),
    ("The answer is A or C", "A", "C", "-", "A", "-"),
    ("The answer is not B", "B", "B", "-", "B", "-"),
    ("The answer is A. No, the answer is C.", "A", "C", "-", "A", "-"),
    ("<think>Maybe A, a cat.</think>B", "B", "B", "B", "B", "B"),
    ("B<think>Or A.</think>", "B", "B", "B", "B", "B"),
    ("Maybe A.</think>\nB", "B", "B", "B", "B", "B"),
    ("<THINK>Maybe A.</THINK>B", "A", "B", "-", "A", "B"),
    ("<think>Maybe A, then D", "A", "D", "-", "A", "-"),
    ("<answer>B</answer>", "B", "B", "-", "B", "B"),
    (r"So it is \boxed{B}", "B", "B", "-", "B", "B"),
    (r"$\boxed{\text{B}}$", "B", "B", "-", "B", "B"),
    ("The correct answer is b.", "-", "-", "-", "B", "B"),
    ("The answer is a.", "-", "-", "-", "A", "A"),
    ("The answer is a", "-", "-", "-", "A", "-"),
    ("The answer is a green kite", "-", "-", "-", "A", "B"),
    ("Not B", "B", "B", "-", "B", "-"),
    ("Ｂ", "-", "-", "-", "-", "B"),
    ("Б", "-", "-", "-", "-", "-"),
    ("E", "-", "-", "-", "E", "-"),
    ("(B)because it flies", "B", "B", "B", "B", "-"),
    ("i.e. the sky", "-", "-", "-", "-", "-"),
    ("." * 32 + "i.e. the sky", "-", "-", "-", "E", "-"),  # lmms-eval removes 32 periods
    ("Because it flies", "B", "B", "-", "-", "-"),
    ("The kite is green.\nB", "B", "B", "-", "B", "B"),
    ("Option B", "B", "B", "-", "B", "B"),
    ("I choose C because it is blue", "C", "C", "-", "C", "C"),
    ("正解は B です", "B", "B", "-", "B", "-"),
]
READERS = [
    ("videomme", "official"),
    ("videomme", "lmms"),
    ("mvbench", "official"),
    ("mvbench", "lmms"),
    ("mvbench", "strict"),
]
CASES = [(*reader, row[0], choice) for row in CHOICES for reader, choice in zip(READERS, row[1:], strict=True)]


@pytest.mark.parametrize(("benchmark", "scorer", "completion", "choice"), CASES)
def test_each_scorer_reads_its_choice(benchmark, scorer, completion, choice):
    reading = read_answer(benchmark, scorer, completion, COLOURS)
    assert reading.choice == (choice if choice in "ABCDE" else None)
    assert reading.readable == (choice in "ABCDE")
    if choice in "ABCDE":
        assert reading.correct == (choice == "B")


def test_official_video_mme_drops_what_it_cannot_read_from_the_denominator():
    assert not read_answer("videomme", "official", "no idea", COLOURS).counted
    assert read_answer("videomme", "lmms", "no idea", COLOURS).counted


def test_official_mvbench_calls_an_empty_answer_right_and_lmms_drops_it():
    assert read_answer("mvbench", "official", "", COLOURS).correct
    assert not read_answer("mvbench", "lmms", "", COLOURS).counted
    assert read_answer("mvbench", "strict", "", COLOURS).correct is False


@pytest.mark.parametrize(
    ("benchmark", "scorer"),
    [("videomme", "official"), ("videomme", "lmms"), ("mvbench", "lmms"), ("mvbench", "strict")],
)
def test_every_right_option_is_found_among_two_to_five(benchmark, scorer):
    for count in range(2, 5 if benchmark == "videomme" else 6):
        for letter in "ABCDE"[:count]:
            question = Question("?", tuple(f"thing {index}" for index in range(count)), answer=letter)
            assert read_answer(benchmark, scorer, f"({letter})", question).correct
