"""Tiny files, written by hand, in the form in which benchmarks are published."""

import json

import pytest
from tests.annotations.tiny_sources import make_clips, read

from storm_hf.errors import DatasetError


def contents(annotations):
    return [(each.question, each.options, each.answer) for each in annotations]


def test_mvbench_keeps_candidates_texts_and_the_bounds_of_the_clip(tmp_path):
    rows = [
        {
            "video": "K1.mp4",
            "question": "What happened after the person took the cup?",
            "candidates": ["Ate the bread.", "Opened the door.", "A"],
            "answer": "Opened the door.",
            "start": 4.9,
            "end": 14.3,
        },
        {"video": "K1.mp4", "question": "Which letter is shown?", "candidates": ["B", "A"], "answer": "A"},
        {"video": "frames_of_a_show", "question": "Who?", "candidates": ["x", "y"], "answer": "y"},
    ]
    make_clips(tmp_path, "video/K1.mp4", "video/frames_of_a_show/00001.jpg")
    (tmp_path / "action_sequence.json").write_text(json.dumps(rows))
    kept, rejected = read(tmp_path / "action_sequence.json", layout="mvbench", video_root=str(tmp_path / "video"))
    assert contents(kept) == [
        (rows[0]["question"], ("Ate the bread.", "Opened the door.", "A"), "Opened the door."),
        ("Which letter is shown?", ("B", "A"), "A"),
    ]
    assert [(each.start_seconds, each.end_seconds) for each in kept] == [(4.9, 14.3), (None, None)]
    assert ["There is no clip" in each.reason for each in rejected] == [True]


TEMPCOMPASS = {
    "multi-choice": ("What moves?\nA. the kite\nB. the boat", "B. the boat", ("the kite", "the boat"), "the boat"),
    "yes_no": ("Does the boat move?", "yes", (), "yes"),
    "caption_matching": (
        "Which caption matches the video better?\nCaption A: The kite falls.\nCaption B: The kite rises.",
        "Caption B: The kite rises.",
        ("The kite falls.", "The kite rises."),
        "The kite rises.",
    ),
    "option_matching": (
        "Which fits?\nOption 1: The kite falls.\nOption 2: The kite rises.",
        "Option 1: The kite falls.",
        ("The kite falls.", "The kite rises."),
        "The kite falls.",
    ),
}


@pytest.mark.parametrize("task", TEMPCOMPASS)
@pytest.mark.parametrize("form", ["nested", "table"])
def test_tempcompass_is_read_as_groups_and_as_rows(tmp_path, task, form):
    question, stated, options, answer = TEMPCOMPASS[task]
    content = {"question": question, "answer": stated}
    make_clips(tmp_path, "10.mp4", "11.mp4")
    groups = {
        "10": {"action": [content], "speed": [content | {"question": f"So: {question}"}]},
        "11": {"order": [content]},
    }
    rows = [
        {"video_id": video, "dim": aspect, **each}
        for video, aspects in groups.items()
        for aspect, asked in aspects.items()
        for each in asked
    ]
    (tmp_path / "questions.json").write_text(json.dumps(groups if form == "nested" else rows))
    kept, rejected = read(tmp_path / "questions.json", layout="tempcompass")
    assert rejected == []
    assert [each.video.name for each in kept] == ["10.mp4", "10.mp4", "11.mp4"]
    assert {(each.options, each.answer, each.license) for each in kept} == {(options, answer, "CC-BY-NC-4.0")}
    assert [each.question for each in kept][::2] == [question.split("\n")[0]] * 2


@pytest.mark.parametrize(
    ("text", "num_kept", "line"),
    [
        ('{"10": {"action": [{"question": "q", "answer": "yes"}]}, "11": {"action"', 1, 2),
        ('{"10": {"action": [{"question": "q", "answer": "yes"}, 3]}, "11": {}}', 1, 2),
        ('{"10": [{"question": "q", "answer": "yes"}]}', 0, 1),
    ],
)
def test_group_that_is_broken_costs_no_other(tmp_path, text, num_kept, line):
    make_clips(tmp_path, "10.mp4")
    (tmp_path / "yes_no.json").write_text(text)
    kept, rejected = read(tmp_path / "yes_no.json", layout="tempcompass")
    assert len(kept) == num_kept
    assert [each.line for each in rejected] == [line]


NEXTQA = (
    "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    "401,369,640,480,what do the two men play,0,6,CH,drums,chess,cards,golf,tennis\n"
    "402,369,640,480,why did he stop,4,6,CW,tired,rain,a dog,a call,the light\n"
)


@pytest.mark.parametrize(
    ("folders", "clips"),
    [(None, ["401.mp4", "402.mp4"]), ({"401": "1164/401", "402": "0001/402"}, ["1164/401.mp4", "0001/402.mp4"])],
)
def test_nextqa_is_read_with_and_without_the_folders_of_vidor(tmp_path, folders, clips):
    make_clips(tmp_path, *(f"videos/{clip}" for clip in clips))
    (tmp_path / "val.csv").write_text(NEXTQA)
    if folders:
        (tmp_path / "map_vid_vidorID.json").write_text(json.dumps(folders))
    kept, rejected = read(tmp_path / "val.csv", layout="nextqa", video_root=str(tmp_path / "videos"))
    assert rejected == []
    assert [(each.answer, len(each.options)) for each in kept] == [("drums", 5), ("the light", 5)]
    assert [str(each.video.relative_to(tmp_path / "videos")) for each in kept] == clips
    assert len({each.id for each in kept}) == 2  # their qid is the same


def test_open_questions_of_nextqa_are_read_too(tmp_path):
    make_clips(tmp_path, "401.mp4")
    (tmp_path / "val.csv").write_text("video,question,answer,qid,type\n401,what falls,a leaf,0,DO\n")
    kept, _ = read(tmp_path / "val.csv", layout="nextqa")
    assert contents(kept) == [("what falls", (), "a leaf")]


ACTIVITYNET_QUESTIONS = [
    {"video_name": "1QI", "question": "does the car stop", "question_id": "v_1QI_2"},
    {"video_name": "1QI", "question": "what is behind the car", "question_id": "v_1QI_5"},
]
ACTIVITYNET_ANSWERS = [
    {"answer": "a tree", "type": 5, "question_id": "v_1QI_5"},
    {"answer": "yes", "type": 3, "question_id": "v_1QI_2"},
]


def test_activitynet_qa_joins_questions_with_their_answers(tmp_path):
    make_clips(tmp_path, "v_1QI.mp4")
    (tmp_path / "val_q.json").write_text(json.dumps(ACTIVITYNET_QUESTIONS))
    (tmp_path / "val_a.json").write_text(json.dumps(ACTIVITYNET_ANSWERS[:1]))
    kept, rejected = read(tmp_path / "val_q.json", layout="activitynet_qa")
    assert [(each.id, each.answer) for each in kept] == [("v_1QI_5", "a tree")]
    assert [(each.id, each.reason) for each in rejected] == [
        ("v_1QI_2", "The row has no 'answer', which should be the answer.")
    ]


def test_activitynet_qa_whose_rows_have_their_answers_needs_no_second_file(tmp_path):
    make_clips(tmp_path, "v_1QI.mp4")
    (tmp_path / "test.json").write_text(json.dumps([ACTIVITYNET_QUESTIONS[0] | ACTIVITYNET_ANSWERS[1]]))
    kept, _ = read(tmp_path / "test.json", layout="activitynet_qa")
    assert contents(kept) == [("does the car stop", (), "yes")]


@pytest.mark.parametrize("text", [None, "[{"])
def test_answers_that_are_missing_or_damaged_are_named(tmp_path, text):
    make_clips(tmp_path, "v_1QI.mp4")
    (tmp_path / "val_q.json").write_text(json.dumps(ACTIVITYNET_QUESTIONS))
    if text:
        (tmp_path / "val_a.json").write_text(text)
    with pytest.raises(DatasetError, match=r"val_a.json beside val_q.json.*missing or damaged"):
        read(tmp_path / "val_q.json", layout="activitynet_qa")


def test_cgbench_reads_letters_far_beyond_d(tmp_path):
    content = {
        "qid": 7,
        "video_uid": "u1",
        "question": "How often does the bell ring?",
        "choices": [f"{count} times" for count in range(12)],
        "right_answer": "K",
        "answer": "10 times",
        "clue_intervals": [[3.0, 9.5]],
        "duration": 1200.0,
        "domain": "Life Record",
        "sub_category": "Counting",
    }
    make_clips(tmp_path, "cg_videos_720p/u1.mp4")
    (tmp_path / "cgbench.json").write_text(json.dumps([content]))
    kept, rejected = read(tmp_path / "cgbench.json", layout="cgbench", video_root=str(tmp_path / "cg_videos_720p"))
    assert rejected == []
    assert [(each.id, each.answer, len(each.options)) for each in kept] == [("7", "10 times", 12)]
