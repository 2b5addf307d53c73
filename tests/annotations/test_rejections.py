import json

import pytest
from tests.annotations.tiny_sources import make_clips, read, read_row, row, write_lines

from storm_hf.annotations import Annotation, Rejection, write_rejections
from storm_hf.errors import DatasetError


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": None}, "The row has no 'question', which should be the question."),
        ({"answer": None}, "The row has no 'answer', which should be the answer."),
        ({"video": None}, "The row has no 'video', which should be the clip."),
        ({"question": " \n"}, "The question is empty."),
        ({"question": ["What?"]}, "The question should be text but is of the type list."),
        ({"question": "caf\udce9?"}, "The question is not valid UTF-8."),
        ({"answer": "C"}, "The answer C is none of the options A, B."),
        ({"answer": "(D) a bird"}, "The answer D is none of the options A, B."),
        ({"answer": "a bird"}, "The answer 'a bird' is not among the 2 options."),
        ({"answer": "A. a dog"}, "The answer has the letter A but the text of B."),
        ({"options": ["B", "A"], "answer": "A"}, "The answer A is the letter of one option and the text of another"),
        ({"options": ["a cat", "", "a dog"]}, "The option B is empty."),
        ({"options": 3}, "The options should be a list but are 3."),
        ({"time_seconds": -1}, "The time_seconds is negative: -1 s."),
        ({"time_seconds": "soon"}, "The time_seconds should be a time in seconds but is 'soon'."),
        ({"time_seconds": True}, "The time_seconds should be a time in seconds but is True."),
        ({"start_seconds": 4, "end_seconds": 4}, "The part of the clip ends at 4 s but begins at 4 s."),
        ({"end_seconds": 0}, "The part of the clip ends at 0 s but begins at 0 s."),
        ({"end_seconds": "9" * 5000}, "The end_seconds should be a time in seconds but is '999"),
        ({"video": "b\0.mp4"}, "There is no clip"),
        ({"video": "b" * 5000}, "There is no clip"),
        ({"video": {"path": None, "bytes": "x"}}, "The clip is embedded in the row."),
        ({"video": {"path": "a.mp4", "bytes": "not those of a.mp4"}}, "The clip is embedded in the row."),
        ({"video": ["a.mp4", "b.mp4"]}, "The row has 2 clips, and an annotation has one."),
    ],
)
def test_bad_row_is_rejected_with_its_reason(tmp_path, changes, reason):
    rejection = read_row(tmp_path, row(**changes))
    assert isinstance(rejection, Rejection)
    assert rejection.reason.startswith(reason)
    assert (rejection.line, rejection.id, rejection.source) == (1, "1", "rows")
    assert rejection.row == row(**changes)


def test_missing_clip_is_named_with_its_whole_path(tmp_path):
    assert read_row(tmp_path, row(video="b.mp4")).reason == f"There is no clip {tmp_path / 'b.mp4'}."
    assert read_row(tmp_path, row(video=".")).reason == f"There is no clip {tmp_path}."


@pytest.mark.parametrize("stated", ["../secret.mp4", "{folder}/secret.mp4", "a/../../secret.mp4"])
def test_clip_outside_of_the_video_root_is_rejected(tmp_path, stated):
    make_clips(tmp_path, "secret.mp4", "root/a.mp4", "root/a/b.mp4")
    stated = stated.format(folder=tmp_path)
    rejection = read_row(tmp_path, row(video=stated), video_root=str(tmp_path / "root"))
    assert rejection.reason == f"The clip {stated} lies outside of the video root {tmp_path / 'root'}."


@pytest.mark.parametrize(("link", "target"), [("root/b.mp4", "secret.mp4"), ("root/away", ".")])
def test_link_out_of_the_video_root_is_rejected(tmp_path, link, target):
    make_clips(tmp_path, "secret.mp4", "root/a.mp4")
    (tmp_path / link).symlink_to(tmp_path / target)
    stated = "b.mp4" if link.endswith("mp4") else "away/secret.mp4"
    rejection = read_row(tmp_path, row(video=stated), video_root=str(tmp_path / "root"))
    assert rejection.reason.startswith(
        f"The clip {stated} lies outside of the video root {tmp_path / 'root'}, since it is a link"
    )


def test_links_within_a_root_and_in_the_cache_of_the_hub_are_followed(tmp_path):
    cache = tmp_path / "datasets--me--clips"
    make_clips(cache, "blobs/0123", "snapshots/abc/b.mp4")
    (cache / "snapshots/abc/a.mp4").symlink_to("../../blobs/0123")
    (cache / "snapshots/abc/c.mp4").symlink_to("b.mp4")
    (tmp_path / "root").symlink_to(cache / "snapshots/abc")
    for name in ("a.mp4", "c.mp4"):
        kept = read_row(tmp_path, row(video=name), video_root=str(tmp_path / "root"))
        assert kept.video == tmp_path / "root" / name


def test_video_root_that_is_not_there_rejects_no_row_for_it(tmp_path):
    with pytest.raises(DatasetError, match=r"no .*/nowhere. Is its disk mounted"):
        read_row(tmp_path, row(), video_root=str(tmp_path / "nowhere"))


def test_video_root_with_dots_in_it_holds_its_clips(tmp_path, monkeypatch):
    make_clips(tmp_path, "a.mp4", "here/b.mp4")
    monkeypatch.chdir(tmp_path / "here")
    assert read_row(tmp_path, row(), video_root="..").video == tmp_path / "a.mp4"


def test_second_row_with_an_id_is_rejected(tmp_path):
    make_clips(tmp_path, "a.mp4")
    kept, rejected = read(write_lines(tmp_path / "rows.jsonl", [row(), row(id="2"), row(question="Other?")]))
    assert [each.id for each in kept] == ["1", "2"]
    assert [(each.line, each.id, each.reason) for each in rejected] == [(3, "1", "An earlier row has the id 1.")]


def test_same_question_without_an_id_is_rejected_the_second_time(tmp_path):
    make_clips(tmp_path, "a.mp4")
    kept, rejected = read(write_lines(tmp_path / "rows.jsonl", [row(id=None), row(id=None)]))
    assert len(kept) == 1
    assert rejected[0].reason == "An earlier row has the same question about the same clip."


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "The conversation has no turn."),
        ("[{", "The conversation should be a list of turns but is text that is no JSON."),
        ({"from": "human"}, "The conversation should be a list of turns but is of the type dict."),
        (["Who?"], "A turn of the conversation should say who speaks and what but is 'Who?'."),
        ([{"from": "gpt", "value": "Hm."}], "Turn 1 of the conversation should be of human or user but is of 'gpt'."),
        ([{"from": "human", "value": "Who?"}], "The last question of the conversation has no answer."),
    ],
)
def test_conversation_that_is_none_is_rejected(tmp_path, turns, reason):
    rejection = read_row(tmp_path, {"id": "t", "video": "a.mp4", "conversations": turns}, layout="llava")
    assert (rejection.id, rejection.reason) == ("t", reason)


def test_letter_without_options_is_rejected_where_answers_are_letters(tmp_path):
    content = {"video_path": "a.mp4", "question": "Which?", "answer": "(B)"}
    rejection = read_row(tmp_path, content, layout="video_espresso")
    assert rejection.reason == "The answer is the letter '(B)' but the question has no options."


def test_control_tokens_are_text(tmp_path):
    annotation = read_row(tmp_path, row(question="<|im_end|> <|latent|>?"))
    assert annotation.question == "<|im_end|> <|latent|>?"


def test_number_zero_is_an_answer(tmp_path):
    assert read_row(tmp_path, row(options=None, answer=0)).answer == "0"


def test_file_with_a_third_broken_keeps_every_good_row_and_names_every_bad_one(tmp_path):
    broken = [
        "{",
        row(id="x", question=None),
        row(id="x", video="none.mp4"),
        row(id="x", answer="Z"),
        "[1]",
        '"\\ud800"',
    ]
    rows = [broken[line % len(broken)] if line % 10 in (2, 5, 7) else row(id=f"good-{line}") for line in range(200)]
    make_clips(tmp_path, "a.mp4")
    kept, rejected = read(write_lines(tmp_path / "rows.jsonl", rows))
    assert [each.id for each in kept] == [f"good-{line}" for line in range(200) if line % 10 not in (2, 5, 7)]
    assert [each.line for each in rejected] == [line + 1 for line in range(200) if line % 10 in (2, 5, 7)]
    assert all(each.reason for each in rejected)


def test_rejections_are_written_line_by_line(tmp_path):
    rejections = [Rejection(3, "x", "It is caf\udce9.", {"id": "x"}, "mine"), Rejection(4, None, "It is none.", {})]
    assert write_rejections(tmp_path / "out" / "rejected.jsonl", iter(rejections)) == 2
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"line": 3, "id": "x", "reason": "It is caf\udce9.", "source": "mine"},
        {"line": 4, "id": None, "reason": "It is none.", "source": ""},
    ]


def test_rejections_cut_short_leave_no_file(tmp_path):
    def stopped():
        yield Rejection(1, None, "It is none.", {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rejections(tmp_path / "rejected.jsonl", stopped())
    assert list(tmp_path.iterdir()) == []


def test_row_that_is_good_is_no_rejection(tmp_path):
    assert isinstance(read_row(tmp_path, row()), Annotation)
