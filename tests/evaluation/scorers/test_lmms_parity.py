"""Our `lmms` scorer against lmms-eval's own functions: over the tables and over random answers, mark for mark."""

import random
from importlib import import_module

import pytest
from tests.evaluation.scorers import test_choices, test_mmvu, test_tempcompass

from storm_hf.evaluation.scorers import read_answer
from storm_hf.evaluation.scorers.strict import without_reasoning


pytestmark = [pytest.mark.lmms, pytest.mark.slow]

PIECES = [
    *(
        "A",
        "B",
        "C",
        "D",
        "E",
        "a",
        "b",
        "e",
        "(",
        ")",
        ".",
        ",",
        ":",
        ";",
        " ",
        " ",
        "\n",
        "'",
        '"',
        "1",
        "2",
        "1,0",
        "²",
    ),
    *(
        "yes",
        "No",
        "Caption A",
        "Option 2",
        "the answer is",
        "Answer:",
        "答案是",
        "<think>",
        "</think>",
        "</s>",
        "Because",
    ),
    *(
        "a green kite",
        "a torque wrench",
        "A bird takes off.",
        "red",
        "O(n^2)",
        "depth-first search",
        "search",
        "mitral",
        "42",
    ),
]


def answers():
    generator = random.Random(0)
    made = ["".join(generator.choices(PIECES, k=generator.randint(0, 7))) for _ in range(4_000)]
    table = [row[0] for row in test_choices.CHOICES + test_mmvu.CHOICES] + [row[1] for row in test_mmvu.OPEN]
    return [*table, *(row[1] for row in test_tempcompass.ROWS), *made]


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory):
    """Environment that lmms-eval's modules read at import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def tasks(benchmark):
    return import_module(f"lmms_eval.tasks.{benchmark}.utils")


def stripped(completion):
    strip = import_module("lmms_eval.api.reasoning").strip_reasoning_tags
    return strip(completion, [["<think>", "</think>"], ["<analysis>", "</analysis>"]])


def test_reasoning_is_cut_as_lmms_eval_cuts_it():
    assert [without_reasoning(answer) for answer in answers()] == [stripped(answer) for answer in answers()]


def test_video_mme_chooses_the_same_letter():
    theirs = tasks("videomme").extract_characters_regex
    for answer in answers():
        reading = read_answer("videomme", "lmms", answer, test_choices.COLOURS)
        assert (reading.choice or "") == theirs(stripped(answer)), answer


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")  # of lmms-eval's own code
def test_mvbench_gives_the_same_mark():
    question = test_choices.COLOURS
    document = {"candidates": list(question.options), "answer": question.answer_text}
    theirs = tasks("mvbench")
    for answer in answers():
        result = theirs.mvbench_process_results(document, [stripped(answer)])["mvbench_accuracy"]
        reading = read_answer("mvbench", "lmms", answer, question)
        assert bool(reading.correct) == bool(result["score"]), answer
        assert reading.counted == (result["pred_answer"] != ""), answer


@pytest.mark.parametrize("question", [test_mmvu.CHOICE, *(test_mmvu.open_question(row[0]) for row in test_mmvu.OPEN)])
def test_mmvu_gives_the_same_mark(question):
    kind, choices = question.kind, dict(zip("ABCDE", question.options, strict=False))
    document = {"question_type": kind, "choices": choices, "answer": question.answer, "question": question.text}
    theirs = tasks("mmvu").evaluate_with_rule_based
    for answer in answers():
        assert bool(read_answer("mmvu", "lmms", answer, question).correct) == theirs(document, stripped(answer)), (
            answer
        )


@pytest.mark.parametrize(
    "question", [test_tempcompass.CHOICE, test_tempcompass.YES, test_tempcompass.CAPTIONS, test_tempcompass.NUMBERED]
)
def test_tempcompass_gives_the_same_mark_and_sends_the_same_answers_to_the_judge(question, monkeypatch):
    theirs = tasks("tempcompass")
    monkeypatch.setattr(theirs, "get_eval_result", lambda prompt: ("Incorrect", 0))
    name = {"multiple-choice": "multi_choice"}.get(question.kind, question.kind)
    process = getattr(theirs, f"tempcompass_process_results_{name}")
    for answer in answers():
        result = process(as_document(question), [stripped(answer)])["avg_accuracy"]
        reading = read_answer("tempcompass", "lmms", answer, question)
        assert reading.correct is (bool(result["rating"]) if result["match_success"] else None), answer


def as_document(question):
    joint = ". " if question.kind == "multiple-choice" else ": "
    lines = [f"{label}{joint}{text}" for label, text in zip(question.option_labels, question.options, strict=True)]
    answers = dict(zip(question.option_labels, lines, strict=True))
    text, answer = "\n".join([question.text, *lines]), answers.get(question.answer, question.answer)
    return {"question": text, "answer": answer, "dim": "action", "video_id": "v"}
