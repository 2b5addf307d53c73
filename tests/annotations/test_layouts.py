import json

import pytest
from tests.annotations.tiny_sources import make_clips, read, read_row, row

from storm_hf.annotations import Annotation, Rejection, known_layouts, load_layout
from storm_hf.errors import ConfigurationError


def test_package_brings_the_public_layouts():
    assert known_layouts() == [
        "activitynet_qa",
        "cgbench",
        "llava",
        "llava_video_178k",
        "mvbench",
        "nextgqa",
        "nextqa",
        "plain",
        "tempcompass",
        "video_espresso",
        "video_r1",
    ]
    assert all(load_layout(name) for name in known_layouts())


def test_plain_row_fills_every_field(tmp_path):
    content = row(time_seconds=2, start_seconds="0:01", end_seconds=3.5, license="CC-BY-4.0")
    assert read_row(tmp_path, content, name="mine") == Annotation(
        id="1",
        video=tmp_path / "a.mp4",
        question="What is it?",
        options=("a cat", "a dog"),
        answer="a dog",
        time_seconds=2.0,
        license="CC-BY-4.0",
        source="mine",
        start_seconds=1.0,
        end_seconds=3.5,
    )


def test_video_r1_reads_letters_tags_and_open_answers_and_leaves_images(tmp_path):
    shared = {"data_type": "video", "data_source": "CLEVRER", "path": "./CLEVRER/v1.mp4"}
    rows = [
        shared
        | {
            "problem_id": 1,
            "problem": "What moves?",
            "problem_type": "multiple choice",
            "options": ["A. a cube", "B. a ball"],
            "solution": "<answer>B</answer>",
        },
        shared
        | {
            "problem_id": 1,
            "problem": "How many collide?",
            "problem_type": "numerical",
            "options": [],
            "solution": "<answer>0</answer>",
        },
        {
            "problem": "How many?",
            "data_type": "image",
            "path": "x.png",
            "options": [],
            "solution": "<answer>3</answer>",
        },
        shared | {"problem": "Which?", "options": [], "solution": "a ball"},
    ]
    make_clips(tmp_path, "videos/CLEVRER/v1.mp4")
    (tmp_path / "Video-R1-260k.json").write_text(json.dumps(rows))
    kept, rejected = read(tmp_path / "Video-R1-260k.json", layout="video_r1", video_root=str(tmp_path / "videos"))
    assert [(each.question, each.options, each.answer) for each in kept] == [
        ("What moves?", ("a cube", "a ball"), "a ball"),
        ("How many collide?", (), "0"),
    ]
    assert {(each.source, each.license) for each in kept} == {("Video-R1", "Apache-2.0")}
    assert {each.video for each in kept} == {tmp_path / "videos/CLEVRER/v1.mp4"}
    assert [(each.line, each.reason) for each in rejected] == [
        (3, "The row has 'image' as data_type, and only 'video' is taken."),
        (4, "The answer has no <answer>...</answer>."),
    ]


def test_llava_video_178k_splits_turns_options_and_instructions(tmp_path):
    turns = [
        ("human", "<image>\nWhat is on the arm?\nA. A tattoo\nB. A watch\nPlease respond with only the letter of the correct answer."),
        ("gpt", "A."),
        (
            "human",
            "What color is it?\nA. Black\nB. Silver\n"
            "Please provide your answer by stating the letter followed by the full option.",
        ),
        ("gpt", "B. Silver."),
        ("human", "What is cooked?"),
        ("gpt", "An egg, sunny side up."),
    ]  # fmt: skip
    rows = [
        {
            "id": "split_2",
            "conversations": [{"from": who, "value": text} for who, text in turns],
            "data_source": "0_30_s_academic_v0_1",
            "video": "youcook2/split_2.mp4",
        }
    ]
    make_clips(tmp_path, "0_30_s_academic_v0_1/youcook2/split_2.mp4")
    (tmp_path / "mc.json").write_text(json.dumps(rows))
    kept, rejected = read(tmp_path / "mc.json", layout="llava_video_178k")
    assert rejected == []
    assert [(each.question, each.options, each.answer) for each in kept] == [
        ("What is on the arm?", ("A tattoo", "A watch"), "A tattoo"),
        ("What color is it?", ("Black", "Silver"), "Silver"),
        ("What is cooked?", (), "An egg, sunny side up."),
    ]
    assert len({each.id for each in kept}) == 3
    assert {each.video for each in kept} == {tmp_path / "0_30_s_academic_v0_1/youcook2/split_2.mp4"}
    assert "research" in kept[0].license


def test_llava_conversation_of_several_turns_becomes_several_annotations(tmp_path):
    turns = [
        {"from": "system", "value": "Be short."},
        {"from": "human", "value": "Who <video> comes?"},
        {"from": "gpt", "value": "A man."},
        {"from": "human", "value": "And then?\n<video>"},
        {"from": "gpt", "value": "He goes."},
    ]
    make_clips(tmp_path, "a.mp4")
    (tmp_path / "talk.json").write_text(json.dumps([{"id": "t", "video": "a.mp4", "conversations": turns}]))
    kept, _ = read(tmp_path / "talk.json", layout="llava")
    assert [(each.id, each.question, each.answer) for each in kept] == [
        ("t-0", "Who <video> comes?", "A man."),
        ("t-1", "And then?", "He goes."),
    ]


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ({"videos": ["a.mp4", "b.mp4"]}, "The row has 2 clips"),
        ({"video": ["a.mp4", "b.mp4"]}, "The row has 2 clips"),
        ({"video": "a.mp4", "image": "x.jpg"}, "The row has a picture beside its clip"),
        ({"video": "a.mp4", "images": ["x.jpg"]}, "The row has a picture beside its clip"),
        ({"video": "a.mp4", "images": []}, None),
        ({"video": ["a.mp4"]}, None),
    ],
)
def test_conversation_about_more_than_one_clip_is_rejected(tmp_path, shown, reason):
    said = [{"from": "human", "value": "<video>\nWho comes?"}, {"from": "gpt", "value": "A man."}]
    make_clips(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "talk.json").write_text(json.dumps([{"id": "t", **shown, "conversations": said}]))
    kept, rejected = read(tmp_path / "talk.json", layout="llava")
    assert [each.reason.startswith(reason) for each in rejected] == ([True] if reason else [])
    assert len(kept) == (reason is None)


def test_bad_turn_of_a_conversation_costs_no_other(tmp_path):
    turns = ["<video>", "Nothing.", "Who comes?", "A man."]
    said = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(turns)]
    make_clips(tmp_path, "a.mp4")
    (tmp_path / "talk.json").write_text(json.dumps([{"id": "t", "videos": ["a.mp4"], "conversations": said}]))
    kept, rejected = read(tmp_path / "talk.json", layout="llava")
    assert [each.id for each in kept] == ["t-1"]
    assert [(each.id, each.reason) for each in rejected] == [("t-0", "The question is empty.")]


@pytest.mark.parametrize("asked", ["<video>\n<video>\nWhich is faster?", "<video>\n<image>\nIs it this?"])
def test_question_with_places_for_two_clips_is_rejected_with_its_reason(tmp_path, asked):
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "The first."}]
    rejection = read_row(tmp_path, {"id": "t", "video": "a.mp4", "conversations": turns}, layout="llava")
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "The question has places for 2 clips or pictures, and an annotation has one clip."


def test_plain_row_of_a_benchmark_keeps_its_candidates(tmp_path):
    content = row(options=None, candidates=["a cat", "a dog"])
    assert read_row(tmp_path, content).options == ("a cat", "a dog")


def test_video_espresso_reads_open_training_rows_and_lettered_test_rows(tmp_path):
    rows = [
        {"video_path": "a.mp4", "path": ["1.jpg"], "question": "Why?", "answer": "It rains.", "evidence": "drops"},
        {"video_path": "a.mp4", "question": "Why?", "options": ["(A): sun", "(B): rain"], "correct_answer": "(B)"},
    ]
    make_clips(tmp_path, "a.mp4")
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    kept, rejected = read(tmp_path / "bench.json", layout="video_espresso")
    assert rejected == []
    assert [(each.options, each.answer, each.license) for each in kept] == [
        ((), "It rains.", "unknown"),
        (("sun", "rain"), "rain", "unknown"),
    ]


def test_layout_of_ones_own_maps_nested_fields_columns_and_paths(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "source: Mine\n"
        "fields: {id: qa.qid, video: vid, question: qa.q, answer: qa.a, time_seconds: qa.at}\n"
        'video_path: "clips/{set}/{video}.mp4"\n'
        "option_fields: [a0, a1, a2]\n"
        "answer_form: index\n"
    )
    make_clips(tmp_path, "clips/7/x.mp4")
    content = {
        "qa": {"qid": 3, "q": "Which?", "a": 1, "at": "1:02:03.5"},
        "vid": "x",
        "set": 7,
        "a0": "no",
        "a1": "yes",
    }
    annotation = read_row(tmp_path, content, layout=str(tmp_path / "mine.yaml"))
    assert annotation.video == tmp_path / "clips/7/x.mp4"
    assert (annotation.id, annotation.options, annotation.answer, annotation.source) == (
        "3",
        ("no", "yes"),
        "yes",
        "Mine",
    )
    assert annotation.time_seconds == 3723.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fields: {video: v, question: q}", "keeps its answer"),
        ("fields: {video: v, question: q, answer: a, mood: m}", "in `fields` but got mood"),
        ("fields: {video: v, question: q, answer: a}\ncolour: red", "in the layout but got colour"),
        (
            "fields: {video: v, question: q, answer: a}\nanswer_form: number",
            "`answer_form` must be one of auto, letter, text, index, got 'number'",
        ),
        (
            "fields: {video: v, question: q, answer: a}\noption_fields: a0",
            "`option_fields` must be a list of values, each text, got 'a0'",
        ),
        (
            "fields: {video: v, question: q, answer: 3}",
            "`fields` must be a mapping from text to a list of values, each text, got .*3",
        ),
        (
            "fields: {video: v, question: q, answer: a}\njoin: {file: b.json}",
            "Expected `join` with by, which is missing: got {'file': 'b.json'}",
        ),
        (
            "fields: {video: v, question: q, answer: a}\njoin: {file: b.json, by: 3}",
            "In `join`: `by` must be text that is not empty, got 3",
        ),
        ("fields: {video: v, question: q, answer: a}\njoin: b.json", "Expected `join` as a mapping but got 'b.json'"),
        (
            "fields: {video: v, question: q, answer: a}\nnested: id",
            "`nested` must be a list of values, each text, got 'id'",
        ),
        ("[video]", "bad.yaml cannot be used. Expected the layout as a mapping but got \\['video'\\]"),
        ("fields: {video: v", "no valid YAML"),
    ],
)
def test_layout_that_cannot_read_a_row_says_why(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_layout(str(tmp_path / "bad.yaml"))


def test_unknown_layout_names_those_that_there_are():
    with pytest.raises(ConfigurationError, match=r"plain, tempcompass, video_espresso, video_r1.*'videor1'"):
        load_layout("videor1")
