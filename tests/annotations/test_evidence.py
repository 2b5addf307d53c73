"""Evidence that rows state: intervals, key frames with boxes, and chains of thought."""

import json

import pytest
from tests.annotations.tiny_sources import make_clips, read, read_row, row

from storm_hf.annotations import Annotation, Box, KeyFrame, Rejection


@pytest.mark.parametrize(
    ("stated", "intervals"),
    [
        ([[3, 9.5], [1, 2]], ((3.0, 9.5), (1.0, 2.0))),
        ([3, 9.5], ((3.0, 9.5),)),
        (["0:03", "1:02"], ((3.0, 62.0),)),
        ("[[3, 9.5]]", ((3.0, 9.5),)),
        ([], ()),
        (None, ()),
        ("", ()),
    ],
)
def test_intervals_are_read_in_every_form(tmp_path, stated, intervals):
    assert read_row(tmp_path, row(intervals=stated)).intervals == intervals


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ([[9.5, 3]], "The interval 1 is reversed: it begins at 9.5 s and ends at 3 s."),
        ([[1, 2], [3, 3]], "The interval 2 is empty: it begins and ends at 3 s."),
        ([[-1, 2]], "The start of the interval 1 is negative: -1 s."),
        ([[1, 2, 3]], "The interval 1 should be a start and an end in seconds but is of the type list."),
        ([[1, None]], "The end of the interval 1 is missing."),
        ([["soon", 2]], "The start of the interval 1 should be a time in seconds but is 'soon'."),
        ("soon", "The intervals should be a list but are text that is no JSON: 'soon'."),
        (7, "The intervals should be a list but are 7."),
    ],
)
def test_interval_that_is_none_rejects_its_row_in_a_sentence(tmp_path, stated, reason):
    rejection = read_row(tmp_path, row(intervals=stated))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason


CUP = Box(left=0.1, top=0.2, right=0.5, bottom=0.6)


@pytest.mark.parametrize(
    ("stated", "frames"),
    [
        ([2.5, "0:01"], (KeyFrame(seconds=1.0), KeyFrame(seconds=2.5))),
        ([{"time": 1, "boxes": [[0.1, 0.2, 0.5, 0.6]]}], (KeyFrame(seconds=1.0, boxes=(CUP,)),)),
        (
            [{"seconds": 1, "boxes": {"cup": [0.1, 0.2, 0.5, 0.6], "hand": [[0, 0, 1, 1.004]]}}],
            (
                KeyFrame(
                    seconds=1.0,
                    boxes=(
                        Box(left=0.1, top=0.2, right=0.5, bottom=0.6, label="cup"),
                        Box(left=0.0, top=0.0, right=1.0, bottom=1.0, label="hand"),
                    ),
                ),
            ),
        ),
        (json.dumps([{"time": 1}]), (KeyFrame(seconds=1.0),)),
        ([{"time": 1, "boxes": {"cup": [], "hand": None}}], (KeyFrame(seconds=1.0),)),
        ([], ()),
    ],
)
def test_key_frames_are_read_in_every_form_and_sorted(tmp_path, stated, frames):
    assert read_row(tmp_path, row(key_frames=stated)).key_frames == frames


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([[0.5, 0.2, 0.1, 0.6]], "is empty or reversed: left, top, right and bottom are [0.5, 0.2, 0.1, 0.6]."),
        ([[0.1, 0.2, 0.5, 0.2]], "is empty or reversed"),
        ([[0.1, 0.2, 5, 0.6]], "lies outside of the picture: left, top, right and bottom are [0.1, 0.2, 5, 0.6]"),
        ([[0.1, 0.2, 0.5]], "should be left, top, right and bottom but is of the type list."),
        ([[0.1, 0.2, "wide", 0.6]], "should be in numbers but has 'wide'."),
        ([[0.1, 0.2, 10**400, 0.6]], "should be in numbers but has 1000"),
        ([[0.1, 0.2, float("nan"), 0.6]], "should be in numbers but has nan."),
    ],
)
def test_box_that_is_none_rejects_its_row_in_a_sentence(tmp_path, boxes, reason):
    rejection = read_row(tmp_path, row(key_frames=[{"time": 1, "boxes": boxes}]))
    assert rejection.reason.startswith("The box 1 of the key frame 1 ")
    assert reason in rejection.reason


def test_layout_says_how_key_frames_are_numbered_and_boxes_are_measured(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "fields: {video: video, question: question, answer: answer, key_frames: frames}\n"
        "key_frame_fps: 2.0\nbox_size: [width, 1000]\n"
    )
    content = row(frames=[{"frame": 3, "boxes": [[64, 200, 320, 600]]}], width=640)
    found = read_row(tmp_path, content, layout=str(tmp_path / "mine.yaml"))
    assert found.key_frames == (KeyFrame(seconds=1.5, boxes=(CUP,)),)
    sizeless = read_row(tmp_path, content | {"width": 0}, layout=str(tmp_path / "mine.yaml"))
    assert sizeless.reason == "The size of the picture that boxes are measured in should be above 0 but is 0."


@pytest.mark.parametrize(
    ("words", "chain"),
    [
        ({"process": "<think>\nRed moves.\n</think>", "solution": "<answer>B</answer>"}, "Red moves."),
        ({"solution": "<think>Red moves.</think><answer>B</answer>"}, "Red moves."),
        ({"process": "", "solution": "<think>Red moves.</think><answer>B</answer>"}, "Red moves."),
        ({"process": "Red moves.", "solution": "<answer>B</answer>"}, ""),
        ({"solution": "<answer>B</answer>"}, ""),
    ],
)
def test_video_r1_reads_what_is_thought_and_never_the_answer(tmp_path, words, chain):
    content = {"path": "a.mp4", "problem": "Which?", "options": ["A. red", "B. blue"], "data_type": "video", **words}
    found = read_row(tmp_path, content, layout="video_r1")
    assert isinstance(found, Annotation)
    assert (found.chain_of_thought, found.answer) == (chain, "blue")


def test_cgbench_keeps_the_clue_intervals(tmp_path):
    content = {"qid": 1, "video_uid": "a", "question": "Who?", "choices": ["x", "y"], "right_answer": "B"}
    found = read_row(tmp_path, content | {"clue_intervals": [[3, 9]]}, layout="cgbench")
    assert (found.answer, found.intervals) == ("y", ((3.0, 9.0),))


def write_nextgqa(folder):
    """Two questions about one clip and one about another, as in the repository of NExT-GQA."""
    make_clips(folder, "videos/1164/42.mp4", "videos/77.mp4")
    (folder / "val.csv").write_text(
        "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
        "42,900,640,480,why did the girl stop,tired,1,CW,ran,tired,fell,slept,ate\n"
        "42,900,640,480,what did she do next,sit,3,TN,sit,run,fall,sleep,eat\n"
        "77,300,640,480,why did he wave,greet,0,CW,greet,run,fall,sleep,eat\n"
    )
    (folder / "map_vid_vidorID.json").write_text(json.dumps({"42": "1164/42"}))
    spans = {"42": {"duration": 30, "location": {"1": [[1.2, 5.8]], "3": [[12.1, 17], [20, 23]]}, "fps": 30}}
    (folder / "gsub_val.json").write_text(json.dumps(spans))


def test_nextgqa_joins_the_intervals_of_each_question_by_clip_and_number(tmp_path):
    write_nextgqa(tmp_path)
    kept, rejected = read(tmp_path / "val.csv", layout="nextgqa", video_root=str(tmp_path / "videos"))
    assert rejected == []
    assert [(each.video.stem, each.answer, each.intervals) for each in kept] == [
        ("42", "tired", ((1.2, 5.8),)),
        ("42", "sit", ((12.1, 17.0), (20.0, 23.0))),
        ("77", "greet", ()),
    ]


def test_nextgqa_without_its_intervals_is_nextqa(tmp_path):
    write_nextgqa(tmp_path)
    (tmp_path / "gsub_val.json").unlink()
    kept, _ = read(tmp_path / "val.csv", layout="nextgqa", video_root=str(tmp_path / "videos"))
    assert [each.intervals for each in kept] == [(), (), ()]
