"""Judges behind a real server on loopback, by OpenAI's protocol."""

import json

import pytest
from tests.chat_server import serving

from storm_hf.errors import ServerError
from storm_hf.evaluation.judges import Judge, judge_readings
from storm_hf.evaluation.scorers import Question, Reading
from storm_hf.llm import Message, ServedChat


OPEN = Reading("DNA", None, readable=True)
QUESTIONS = [Question(f"What is shown in {index}?", (), "a helix", "open-ended") for index in range(3)]
ANSWERS = ["DNA", "a double helix", "rain"]


def judge_behind(chat, folder, name="judge-1"):
    served = ServedChat(chat.url, name, retries=0)
    return Judge(name, lambda prompt: served.complete([Message(prompt)]), folder)


def test_a_judge_marks_what_the_rule_left_open_and_nothing_else(tmp_path):
    closed = Reading("rain", False, readable=True)
    with serving("Correct", "Incorrect") as chat:
        marked = judge_readings(judge_behind(chat, tmp_path), QUESTIONS, ANSWERS, [OPEN, OPEN, closed])
    assert [reading.correct for reading in marked] == [True, False, False]
    assert len(chat.requests) == 2
    assert "DNA" in chat.requests[0]["messages"][0]["content"]


def test_a_marked_answer_enters_the_denominator(tmp_path):
    uncounted = Reading(None, None, readable=True, counted=False)
    with serving("Incorrect") as chat:
        marked = judge_readings(judge_behind(chat, tmp_path), QUESTIONS[:1], ANSWERS[:1], [uncounted])
    assert marked[0].counted
    assert marked[0].correct is False


def test_a_second_run_asks_nothing_and_the_prompt_lies_on_the_disk(tmp_path):
    for answers in (["Correct"], ["Incorrect"]):
        with serving(*answers) as chat:
            marked = judge_readings(judge_behind(chat, tmp_path), QUESTIONS, ANSWERS, [OPEN] * 3)
            num_asked = len(chat.requests)
    assert num_asked == 0
    assert all(reading.correct for reading in marked)
    rows = [json.loads(line) for line in (tmp_path / "judgements.jsonl").read_text().split("\n") if line]
    assert [row["answer"] for row in rows] == ["Correct"] * 3
    assert all(row["model"] == "judge-1" and "a helix" in row["prompt"] for row in rows)


def test_another_judge_is_asked_anew(tmp_path):
    with serving("Correct", "Incorrect") as chat:
        readings = [
            judge_readings(judge_behind(chat, tmp_path, name), QUESTIONS[:1], ANSWERS[:1], [OPEN])[0].correct
            for name in ("judge-1", "judge-2")
        ]
    assert readings == [True, False]


def test_a_judge_that_is_lost_is_an_error_and_its_answers_are_kept(tmp_path):
    with serving("Correct", (401, {}, "no key")) as chat:
        with pytest.raises(ServerError, match="401"):
            judge_readings(judge_behind(chat, tmp_path), QUESTIONS, ANSWERS, [OPEN] * 3)
        assert len(chat.requests) == 2
        chat.answers[:] = ["Incorrect"]
        marked = judge_readings(judge_behind(chat, tmp_path), QUESTIONS, ANSWERS, [OPEN] * 3)
        assert len(chat.requests) == 4
    assert [reading.correct for reading in marked] == [True, False, False]


def test_a_torn_line_is_asked_again_and_spoils_no_other(tmp_path):
    file = tmp_path / "judgements.jsonl"
    with serving("Correct", "Correct", "Incorrect") as chat:
        judge_readings(judge_behind(chat, tmp_path), QUESTIONS[:2], ANSWERS[:2], [OPEN] * 2)
        file.write_text(file.read_text()[:-20])
        marked = judge_readings(judge_behind(chat, tmp_path), QUESTIONS[:2], ANSWERS[:2], [OPEN] * 2)
        assert len(chat.requests) == 3
    again = judge_readings(Judge("judge-1", str.upper, tmp_path), QUESTIONS[:2], ANSWERS[:2], [OPEN] * 2)
    assert [reading.correct for reading in marked] == [reading.correct for reading in again] == [True, False]


def test_a_verdict_that_says_nothing_leaves_the_answer_open(tmp_path):
    with serving("Hard to tell.") as chat:
        marked = judge_readings(judge_behind(chat, tmp_path), QUESTIONS[:1], ANSWERS[:1], [OPEN])
    assert marked == [OPEN]


def test_reasoning_is_not_shown_to_the_judge(tmp_path):
    with serving("Correct") as chat:
        judge_readings(judge_behind(chat, tmp_path), QUESTIONS[:1], ["<think>secret</think>DNA"], [OPEN])
    assert "secret" not in chat.requests[0]["messages"][0]["content"]
