import pytest

from storm_hf.evaluation.scorers import Question, read_answer


CHOICE = Question("What happens?", ("a bird lands", "a bird takes off", "a dog runs"), answer="B")
YES = Question("Does the bird fly?", (), answer="yes", kind="yes_no")
CAPTIONS = Question(
    "Which caption fits?",
    ("A bird lands.", "A bird takes off."),
    answer="Caption B",
    kind="caption_matching",
    labels=("Caption A", "Caption B"),
)
NUMBERED = Question(
    "Which one fits?",
    ("Rain falls: it is wet.", "Snow falls."),
    "Option 1",
    "caption_matching",
    ("Option 1", "Option 2"),
)

# question, answer, official, lmms, strict; a dash is for the judge, or unreadable where there is none
ROWS = [
    (CHOICE, "B", "B", "B", "B"),
    (CHOICE, "A", "A", "A", "A"),
    (CHOICE, "B. a bird takes off", "B", "B", "B"),
    (CHOICE, "C. a dog runs", "C", "C", "C"),
    (CHOICE, "B) a bird takes off", "B", "B", "B"),
    (CHOICE, "B.", "B", "B", "B"),
    (CHOICE, "B</s>", "B", "-", "B"),
    (CHOICE, " B. a bird takes off </s>", "B", "B", "B"),
    (CHOICE, "(B)", "-", "-", "B"),
    (CHOICE, "b", "-", "-", "B"),
    (CHOICE, "B: a bird takes off", "-", "-", "B"),
    (CHOICE, "a bird takes off", "-", "-", "B"),
    (CHOICE, "A bird takes off", "-", "-", "B"),
    (CHOICE, "The answer is B.", "-", "-", "B"),
    (CHOICE, "**B**", "-", "-", "B"),
    (CHOICE, "", "-", "-", "-"),
    (CHOICE, "A. a bird lands or B. a bird takes off", "A", "A", "-"),
    (CHOICE, "<think>A. no</think>B", "B", "B", "B"),
    (CHOICE, "D", "D", "D", "-"),
    (CHOICE, "Ｂ", "-", "-", "B"),
    (YES, "yes", "yes", "yes", "yes"),
    (YES, "Yes, it does.", "yes", "yes", "yes"),
    (YES, "YES</s>", "yes", "yes", "yes"),
    (YES, "no", "no", "no", "no"),
    (YES, "No.", "no", "no", "no"),
    (YES, "Not sure", "no", "no", "-"),
    (YES, "Nothing moves", "no", "no", "-"),
    (YES, "Yesterday", "yes", "yes", "-"),
    (YES, "yes or no", "yes", "yes", "-"),
    (YES, "The answer is yes", "-", "-", "yes"),
    (YES, "**Yes**", "-", "-", "yes"),
    (YES, "It does", "-", "-", "-"),
    (YES, "", "-", "-", "-"),
    (YES, "<think>no</think> Yes", "yes", "yes", "yes"),
    (CAPTIONS, "Caption B", "Caption B", "Caption B", "Caption B"),
    (CAPTIONS, "B", "Caption B", "Caption B", "Caption B"),
    (CAPTIONS, "B.", "Caption B", "Caption B", "Caption B"),
    (CAPTIONS, "Caption A.", "Caption A", "Caption A", "Caption A"),
    (CAPTIONS, "Caption B: A bird takes off.", "Caption B", "Caption B", "Caption B"),
    (CAPTIONS, "A bird takes off.", "Caption B", "Caption B", "Caption B"),
    (CAPTIONS, "A bird takes off", "-", "-", "Caption B"),
    (CAPTIONS, "(B) A bird takes off.", "Caption B", "Caption B", "Caption B"),
    (CAPTIONS, "B</s>", "Caption B", "-", "Caption B"),
    (CAPTIONS, "caption b", "-", "-", "Caption B"),
    (CAPTIONS, "A bird sings.", "-", "-", "-"),
    (CAPTIONS, "", "-", "-", "-"),
    (CAPTIONS, "The better one is Caption B", "-", "-", "-"),
    (CAPTIONS, "Caption B is right because it rises", "-", "-", "Caption B"),
    (NUMBERED, "1", "Option 1", "Option 1", "Option 1"),
    (NUMBERED, "Option 2", "Option 2", "Option 2", "Option 2"),
    (NUMBERED, "Option 1: Rain falls: it is wet.", "Option 1", "Option 1", "Option 1"),
    (NUMBERED, "Rain falls", "Option 1", "Option 1", "-"),
    (NUMBERED, "Rain falls: it is wet.", "-", "-", "Option 1"),
]
CASES = [
    (question, scorer, completion, choice)
    for question, completion, *choices in ROWS
    for scorer, choice in zip(("official", "lmms", "strict"), choices, strict=True)
]


@pytest.mark.parametrize(("question", "scorer", "completion", "choice"), CASES)
def test_each_scorer_reads_its_choice(question, scorer, completion, choice):
    reading = read_answer("tempcompass", scorer, completion, question)
    assert reading.choice == (None if choice == "-" else choice)
    if choice != "-":
        assert reading.correct == (choice == question.answer)
    else:
        assert not reading.readable
        assert reading.correct is (False if scorer == "strict" else None)
    assert reading.counted


@pytest.mark.parametrize("scorer", ["official", "lmms", "strict"])
def test_captions_always_wait_for_a_judge(scorer):
    question = Question("Describe the clip.", ("it lands", "it flies"), answer="B", kind="captioning")
    reading = read_answer("tempcompass", scorer, "A bird flies.", question)
    assert reading.correct is None
    assert not reading.counted
