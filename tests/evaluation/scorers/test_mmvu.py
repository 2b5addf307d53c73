import pytest

from storm_hf.evaluation.scorers import Question, read_answer


CHOICE = Question("Which tool?", ("a hammer", "a torque wrench", "a saw", "a drill", "none of the above"), answer="B")


def open_question(answer):
    return Question("What is shown?", (), answer=answer, kind="open-ended")


# answer, right for lmms, choice of strict
CHOICES = [
    ("B", True, "B"),
    ("b", True, "B"),
    ("(B)", True, "B"),
    ("B. a torque wrench", True, "B"),
    ("B: a torque wrench", True, "B"),
    ("**B**", True, "B"),
    ("Therefore, the final answer is: B", True, "B"),
    ("Therefore, the final answer is: $B", True, "B"),
    ("A or B", True, None),
    ("A", False, "A"),
    ("C", False, "C"),
    ("E", False, "E"),
    ("", False, None),
    ("no tool", False, None),
    ("a torque wrench", True, "B"),
    ("a hammer, not a torque wrench", True, None),
    ("a wrench but not the one", True, None),
    ("The wrench below", True, None),
    ("wrench", False, None),
    ("None of the above", False, "E"),
    ("<think>A</think>B", True, "B"),
    ("<think>B</think>A", False, "A"),
    ("<answer>B</answer>", True, "B"),
    ("B</s>", True, "B"),
    ("Ｂ", False, "B"),
    ("A man uses B-movies", True, None),
]
# expected, answer, lmms, strict
OPEN = [
    ("depth-first search", "depth-first search", True, True),
    ("depth-first search", "Depth-First Search.", True, True),
    ("depth-first search", "It is a depth-first search of the tree", True, False),
    ("depth-first search", "search", True, False),
    ("depth-first search", "breadth-first search", None, False),
    ("depth-first search", "", True, False),
    ("depth-first search", "s", True, False),
    ("O(n^2)", "O(n²)", True, True),
    ("O(n²)", "o(n^2)", True, True),
    ("O(n^2)", "O(n)", None, False),
    ("42", "42.0", True, True),
    ("42", "42.005", True, False),
    ("42", "43", None, False),
    ("42", "420", True, False),
    ("1,000", "1000", None, True),
    ("1,000", "1,000.0", True, True),
    ("3 kg", "3 m", True, False),
    ("the mitral valve", "mitral valve", True, True),
    ("the mitral valve", "The answer is: the mitral valve", True, True),
    ("mitral valve", "the valve, mitral", True, False),
    ("mitral valve", "<think>aortic</think>mitral valve", True, True),
    ("mitral valve", "mitral valve</s>", True, True),
    ("ＤＮＡ", "DNA", None, True),
    ("DNA", r"\boxed{DNA}", True, True),
    ("redox reaction", "reduction", None, False),
    ("red ox", "a box", None, False),
    ("one two three four five six", "six five four three two one", None, False),
    ("one two three four five", "five four three two one", True, False),
]


@pytest.mark.parametrize(("completion", "is_right", "choice"), CHOICES)
def test_lmms_and_strict_read_the_choice(completion, is_right, choice):
    assert read_answer("mmvu", "lmms", completion, CHOICE).correct is is_right
    assert read_answer("mmvu", "strict", completion, CHOICE).choice == choice


@pytest.mark.parametrize(("expected", "completion", "lmms", "strict"), OPEN)
def test_lmms_and_strict_read_the_open_answer(expected, completion, lmms, strict):
    assert read_answer("mmvu", "lmms", completion, open_question(expected)).correct is lmms
    assert read_answer("mmvu", "strict", completion, open_question(expected)).correct is strict


@pytest.mark.parametrize("question", [CHOICE, open_question("DNA")])
def test_official_leaves_both_kinds_to_a_judge(question):
    reading = read_answer("mmvu", "official", "B", question)
    assert reading.correct is None
    assert not reading.counted
