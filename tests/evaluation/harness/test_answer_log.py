import pytest

from storm_hf.errors import DatasetError
from storm_hf.evaluation.harness.answer_log import AnswerLog, LoggedAnswer, question_key


def logged(text):
    return LoggedAnswer(text, 10, 3, 0, 2, "own", [1.0, 2.0], 6, 0.5, False)


def test_answers_are_there_in_the_next_process(tmp_path):
    AnswerLog(tmp_path).add({"a": logged("yes"), "b": logged("nö\n")})
    AnswerLog(tmp_path).add({"c": logged("no")})
    again = AnswerLog(tmp_path)
    assert [again.get(key) for key in "abcd"] == [logged("yes"), logged("nö\n"), logged("no"), None]


def test_torn_line_is_forgotten_and_does_not_tear_the_next_one(tmp_path):
    log = AnswerLog(tmp_path)
    log.add({"a": logged("yes"), "b": logged("no")})
    log.path.write_bytes(log.path.read_bytes()[:-20])
    after = AnswerLog(tmp_path)
    assert (after.get("a"), after.get("b")) == (logged("yes"), None)
    after.add({"b": logged("no"), "c": logged("maybe")})
    assert [AnswerLog(tmp_path).get(key) for key in "abc"] == [logged("yes"), logged("no"), logged("maybe")]


def test_every_process_reads_what_all_have_written(tmp_path):
    AnswerLog(tmp_path, rank=0).add({"a": logged("yes")})
    AnswerLog(tmp_path, rank=1).add({"b": logged("no")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers-0.jsonl", "answers-1.jsonl"]
    assert AnswerLog(tmp_path, rank=2).get("b") == logged("no")


def test_line_of_another_version_is_told(tmp_path):
    (tmp_path / "answers-0.jsonl").write_text('{"key": "a", "words": "yes"}\n')
    with pytest.raises(DatasetError, match="no answer of this version"):
        AnswerLog(tmp_path)


def test_key_changes_with_all_that_an_answer_depends_on():
    one = ("videomme", 0, "What?", {"max_new_tokens": 16}, {"pretrained": "m"})
    others = [
        ("mvbench", *one[1:]),
        (one[0], 1, *one[2:]),
        (*one[:2], "Who?", *one[3:]),
        (*one[:3], {"max_new_tokens": 8}, one[4]),
        (*one[:4], {"pretrained": "n"}),
    ]
    assert len({question_key(*question) for question in [one, *others]}) == 6
    assert question_key(*one) == question_key(*one)
