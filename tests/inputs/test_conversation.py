"""Rows of every form and from every store make one prompt and one answer, or a DatasetError that names the row."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.row_forms import ANSWER, FORMS, QUESTION, STORES, assistant, embedded, frame_forms, user
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.features import cache_video_features
from storm_hf.training.loading import load_rows
from storm_hf.training.samplers import row_length


STYLES = ("words", "letters", "none")


@pytest.fixture(scope="module")
def loaded(qwen_checkpoint):
    return load_tiny(qwen_checkpoint, 3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"), 2)))["train"]


@pytest.fixture(scope="module")
def videos(rows):
    return list(rows["video"])


@pytest.fixture(scope="module")
def collate(loaded):
    return AnswerCollator(prompt_encoder(*loaded))


def assert_same(batch, expected):
    assert batch.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", FORMS)
def test_form_makes_the_same_batch_from_every_store(form, store, collate, videos, tmp_path):
    if store == "jsonl" and "bytes" in form and form != "no bytes":
        return  # JSON holds no bytes
    row = STORES[store](FORMS[form](videos[0]), tmp_path)
    assert_same(collate([row]), collate([FORMS["prompt and completion"](videos[0])]))


@pytest.mark.parametrize("form", FORMS)
def test_length_of_a_form_is_known(form, collate, videos):
    row = FORMS[form](videos[0])
    assert row_length(row, collate.prompts) == collate([row])["input_ids"].shape[1]


@pytest.mark.parametrize("form", ["array", "channels first", "arrays", "pictures", "paths", "urls", "embedded"])
def test_frames_are_read_in_every_form(form, collate, videos, tmp_path):
    frames = frame_forms(videos[0], tmp_path)[form]
    part = {"type": "video", "video": frames, "fps": 4}
    expected = collate([FORMS["question"](videos[0])])
    assert_same(collate([{"prompt": user(part), "completion": ANSWER}]), expected)
    untimed = collate([{"video": frames, "question": QUESTION, "answer": ANSWER}])
    assert torch.equal(untimed["pixel_values_videos"], expected["pixel_values_videos"])


@pytest.mark.parametrize("form", ["picture", "path", "url", "array", "embedded", "column", "placeholder"])
def test_pictures_are_read_in_every_form(form, collate, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8))
    path = tmp_path / "picture.png"
    picture.save(path)
    sources = {"picture": picture, "path": str(path), "url": f"file://{path}", "array": np.asarray(picture)}
    sources["embedded"] = {"bytes": path.read_bytes(), "path": "elsewhere.png"}
    expected = collate([{"prompt": user({"type": "image", "image": picture}), "completion": ANSWER}])
    if form in sources:
        row = {"prompt": user({"type": "image", "image": sources[form]}), "completion": ANSWER}
    else:
        row = {"prompt": user({"type": "image"}) if form == "placeholder" else user(), "completion": ANSWER}
        row["images"] = [str(path)]
    assert_same(collate([row]), expected)


def test_several_videos_stand_in_their_order(loaded, collate, videos):
    parts = [{"type": "video", "video": video} for video in videos]
    expected = collate([{"prompt": user(*parts), "completion": ANSWER}])
    assert len(expected["video_grid_thw"]) == 2
    columns = {"completion": ANSWER, "videos": videos}
    assert_same(collate([{"prompt": user({"type": "video"}, {"type": "video"}), **columns}]), expected)
    assert_same(collate([{"prompt": f"<video><video>{QUESTION}", **columns}]), expected)
    swapped = collate([{"prompt": QUESTION, "completion": ANSWER, "videos": videos[::-1]}])
    assert torch.equal(swapped["input_ids"], expected["input_ids"])
    assert not torch.equal(swapped["pixel_values_videos"], expected["pixel_values_videos"])


@torch.no_grad()
def test_cached_features_of_several_videos_give_the_loss_of_the_pixels(loaded, collate, videos, rows):
    row = {**rows[0], "prompt": user(*({"type": "video", "video": video} for video in videos)), "completion": ANSWER}
    del row["video"]
    dataset = type(rows).from_list([row, row])
    cached = cache_video_features(dataset, *loaded)
    pixels, features = collate([row]), collate([cached[0]])
    assert torch.equal(features["input_ids"], pixels["input_ids"])
    torch.testing.assert_close(loaded[0](**features).loss, loaded[0](**pixels).loss, rtol=2e-3, atol=2e-3)


def test_earlier_turns_of_a_conversation_are_context(collate, loaded, videos):
    earlier = [*user({"type": "video", "video": videos[0]}), *assistant("up")]
    batch = collate([{"messages": [*earlier, *user(), *assistant()]}])
    decode = loaded[1].tokenizer.decode
    assert decode(batch["labels"][batch["labels"] != -100]) == f"{ANSWER}<|im_end|>"
    assert "assistant\nup<|im_end|>" in decode(batch["input_ids"][0])
    assert_same(batch, collate([{"prompt": [*earlier, *user()], "completion": ANSWER}]))


@pytest.mark.parametrize(
    ("answer", "said"), [(3, "3"), (3.0, "3"), (2.5, "2.5"), (np.int64(7), "7"), (np.float32(0.5), "0.5")]
)
def test_numbers_are_answers(answer, said, collate, loaded, videos):
    batch = collate([{"video": videos[0], "question": "How many?", "answer": answer}])
    assert loaded[1].tokenizer.decode(batch["labels"][batch["labels"] != -100]) == f"{said}<|im_end|>"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("options", [None, [], float("nan"), np.array([])], ids=str)
def test_open_questions_stay_open_among_others(style, options, loaded, videos):
    collate = AnswerCollator(prompt_encoder(*loaded, question_style=style))
    closed = {"video": videos[1], "question": "Which?", "options": ["x", "y"], "answer": "x"}
    is_open = {"video": videos[0], "question": "Why?", "options": options, "answer": "it falls"}
    batch = collate([closed, is_open])
    alone = collate([is_open])
    tokenizer = loaded[1].tokenizer
    assert tokenizer.decode(batch["labels"][1][batch["labels"][1] != -100]) == "it falls<|im_end|>"
    assert tokenizer.decode(alone["input_ids"][0]).partition("<|vision_end|>")[2].startswith("Why?<|im_end|>")


@pytest.mark.parametrize("store", STORES)
def test_arguments_of_the_template_are_passed_on(store, qwen_checkpoint, videos, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, 3)
    told = "{% if tools %}TOOLS {{ tools }}{% endif %}{% if persona is defined %}PERSONA {{ persona }}{% endif %}"
    processor.chat_template = told + processor.chat_template
    collate = AnswerCollator(prompt_encoder(model, processor))
    tools = [{"type": "function", "function": {"name": "look", "description": None}}]
    row = {**FORMS["prompt and completion"](videos[0]), "tools": tools, "chat_template_kwargs": {"persona": "x"}}
    plain = FORMS["prompt and completion"](videos[1])
    stored = STORES[store](row, tmp_path)
    text = processor.tokenizer.decode(collate([stored])["input_ids"][0])
    assert "TOOLS" in text
    assert "PERSONA x" in text
    assert "None" not in text
    both = collate([stored, plain])  # rendered apart, in one batch
    assert torch.equal(both["input_ids"][1][both["attention_mask"][1].bool()], collate([plain])["input_ids"][0])
    assert torch.equal(both["input_ids"][0], collate([stored])["input_ids"][0])
    assert len(both["video_grid_thw"]) == 2


@pytest.mark.parametrize("value", ["x", 1, [{"a": 1}]])
@pytest.mark.parametrize("name", ["num_frames", "max_pixels", "size", "padding_side", "truncation", "unheard_of"])
def test_arguments_that_the_template_does_not_read_never_reach_the_processor(name, value, qwen_checkpoint, videos):
    model, processor = load_tiny(qwen_checkpoint, 3)
    collate = AnswerCollator(prompt_encoder(model, processor))
    row = FORMS["prompt and completion"](videos[0])
    assert_same(collate([{**row, "chat_template_kwargs": {name: value}}]), collate([row]))


def test_arguments_of_the_template_are_read_from_json(qwen_checkpoint, videos):
    model, processor = load_tiny(qwen_checkpoint, 3)
    told = "{% if tools %}TOOLS {{ tools }}{% endif %}{% if persona is defined %}PERSONA {{ persona }}{% endif %}"
    processor.chat_template = told + processor.chat_template
    collate = AnswerCollator(prompt_encoder(model, processor))
    arguments = {
        "tools": [{"type": "function", "function": {"name": "look"}}],
        "chat_template_kwargs": {"persona": "x"},
    }
    row = FORMS["prompt and completion"](videos[0])
    written = {name: json.dumps(value) for name, value in arguments.items()}
    assert_same(collate([{**row, **written}]), collate([{**row, **arguments}]))


def wrong_rows(video):
    """Rows that cannot be trained on, with what the error says besides the row."""
    seen = {"type": "video", "video": video}
    question = {"video": video, "question": "Which?", "options": ["x", "y"], "answer": "x"}
    return {
        "no answer": ({**question, "answer": None}, "in `answer`, got None"),
        "nan": ({**question, "answer": float("nan")}, "in `answer`, got nan"),
        "truth": ({**question, "answer": True}, "in `answer`, got True"),
        "no option": ({**question, "answer": "z"}, "'z' is none of the options x, y"),
        "one option": ({**question, "options": ["x"]}, "Expected 2 to 26 options but got 1"),
        "repeated option": ({**question, "options": ["x", "y", "x"]}, "options that differ but got 'x' twice"),
        "empty option": ({**question, "options": ["x", " "]}, r"one of \['x', ' '\] is empty"),
        "nothing": ({"text": "x"}, r"got the columns \['id', 'text'\]"),
        "two answers": ({"prompt": user(seen), "completion": [*assistant(), *assistant()]}, "one assistant message"),
        "empty completion": ({"prompt": user(seen), "completion": []}, "got 0"),
        "no completion": ({"prompt": user(seen), "completion": None}, "in `answer`, got None"),
        "empty answer": ({**question, "options": None, "answer": " "}, "an answer to train on, got an empty text"),
        "empty text completes": ({"prompt": user(seen), "completion": ""}, "an answer to train on, got an empty text"),
        "user completes": ({"prompt": user(seen), "completion": user()}, r"got 1 \(user\)"),
        "picture completes": ({"prompt": user(seen), "completion": assistant([{"type": "image"}])}, "got image"),
        "no reply": ({"messages": user(seen)}, "end in the assistant's answer"),
        "more videos": (
            {"prompt": user({"type": "video"}), "completion": "x", "videos": [video] * 2},
            "got 2 .* for 1",
        ),
        "fewer videos": (
            {"prompt": f"<video><video>{QUESTION}", "completion": "x", "videos": [video]},
            "got 1 .* for 2",
        ),
        "no video": ({"prompt": user({"type": "video"}), "completion": "x"}, "got 0 .* for 1"),
        "unlike frames": (
            {**question, "video": [np.zeros((28, 28, 3), np.uint8), np.zeros((56, 28, 3), np.uint8)]},
            "frames of one size, got 28 x 28, 28 x 56",
        ),
        "float frames": ({**question, "video": np.zeros((2, 28, 28, 3))}, "type uint8, got .* of float64"),
        "remote": ({**question, "video": "https://example.org/a.mp4"}, "Download it first"),
        "neither bytes nor path": ({**question, "video": {"bytes": None, "path": None}}, "its bytes or its frames"),
        "pixels": ({"prompt": user({**seen, "max_pixels": 784}), "completion": "x"}, "sets max_pixels"),
        "cut": ({"prompt": user({**seen, "video_start": 1.0}), "completion": "x"}, "sets video_start"),
        "rate in words": (
            {"prompt": user({**seen, "fps": "2"}), "completion": "x"},
            "`fps` .* a number above 0, got '2'",
        ),
        "no rate": ({"prompt": user({**seen, "fps": 0}), "completion": "x"}, "`fps` .* above 0, got 0"),
        "part of a frame": (
            {"prompt": user({**seen, "nframes": 2.5}), "completion": "x"},
            "`nframes` .* a whole number above 0, got 2.5",
        ),
        "nan frames": ({"prompt": user({**seen, "max_frames": float("nan")}), "completion": "x"}, "above 0, got nan"),
        "content is a number": (
            {"prompt": [{"role": "user", "content": float("nan")}], "completion": "x"},
            "`content` of a message to be text or a list of parts, got nan",
        ),
        "bytes in words": ({**question, "video": {"bytes": "AAAA"}}, "to be bytes, got str"),
        "number of videos": ({**question, "video": None, "videos": 5}, "its bytes or its frames, got int"),
        "bucket": ({**question, "video": "s3://clips/a.mp4"}, "Download it first"),
        "half a character": ({**question, "question": "Which \ud83d?"}, r"in `question`, .*'Which \\ud83d'"),
        "half a character answers": ({"prompt": user(seen), "completion": "\ud83d"}, "in `completion`"),
        "gradient": ({**question, "video": torch.zeros(2, 3, 28, 28, requires_grad=True)}, "a tensor on the CPU"),
        "no pixels": ({**question, "video": np.zeros((2, 0, 28, 3), np.uint8)}, r"got \(2, 0, 28, 3\)"),
        "empty picture": (
            {"prompt": QUESTION, "image": Image.new("RGB", (0, 0)), "completion": "x"},
            "one of 0 x 0 pixels",
        ),
        "sound": ({"prompt": user({"type": "audio", "audio": "a.wav"}), "completion": "x"}, "got 'audio'"),
        "lost picture": ({"prompt": user({"type": "image", "image": "no.png"}), "completion": "x"}, "cannot be read"),
        "two columns": ({"prompt": QUESTION, "completion": "x", "videos": [video], "video": video}, "got both"),
        "question without a video": (
            {"question": "Which?", "videos": [], "answer": "x"},
            "with `video` and `question`",
        ),
        "no messages": ({"prompt": [], "completion": "x"}, "`prompt` with a message before the answer"),
        "answer alone": ({"messages": assistant()}, "`messages` with a message before the answer"),
        "options in JSON": ({**question, "options": '["x", "y"]'}, "`options` to be a list of texts, got str"),
        "options by letter": ({**question, "options": {"A": "x"}}, "`options` to be a list of texts, got dict"),
        "tools": ({"prompt": user(seen), "completion": "x", "tools": "{"}, "`tools` to be a list or its JSON"),
        "arguments": (
            {"prompt": user(seen), "completion": "x", "chat_template_kwargs": [1]},
            "`chat_template_kwargs` to be a dict or its JSON",
        ),
        "template": (
            {"prompt": user(seen), "completion": "x", "chat_template_kwargs": {"num_latents": 9}},
            "sets num_latents",
        ),
        "messages of the template": (
            {"prompt": user(seen), "completion": "x", "chat_template_kwargs": {"messages": [], "videos": []}},
            "sets messages, videos, which the run decides",
        ),
    }


@pytest.mark.parametrize("wrong", wrong_rows("video.mp4"))
def test_row_that_cannot_be_read_is_named(wrong, collate, videos):
    row, message = wrong_rows(videos[0])[wrong]
    with pytest.raises(DatasetError, match=f"(?s)^The row 'seven': .*{message}"):
        collate([{**row, "id": "seven"}])
    good = FORMS["question"](videos[0])
    with pytest.raises(DatasetError, match="^Row 1 of the batch: "):
        collate([good, row])


@pytest.mark.parametrize("text", ["[1, 2] or [3]?", '["left", "right"]', "[", "[]"])
def test_question_in_brackets_is_no_conversation(text, collate, loaded, videos):
    ids = collate([{"prompt": text, "completion": "x", "video": videos[0]}])["input_ids"][0]
    assert text in loaded[1].tokenizer.decode(ids)


@pytest.mark.parametrize("form", ["embedded", "file"])
def test_row_whose_video_is_broken_is_named(form, collate, tmp_path):
    """The file that is written for embedded bytes is gone by the time that the message is read."""
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video" * 99)
    video, name = (
        (str(path), str(path))
        if form == "file"
        else ({"bytes": path.read_bytes(), "path": "a.mp4"}, "the embedded video")
    )
    with pytest.raises(VideoReadError, match=f"^The row 'seven': {name} is not a video: "):
        collate([{"id": "seven", "video": video, "question": QUESTION, "answer": ANSWER}])


@pytest.mark.parametrize("answer", ["x", "X.", "It is red, so x"])
def test_answer_may_reason_before_its_option(answer, collate, videos):
    collate([{"video": videos[0], "question": "Which?", "options": ["x", "y"], "answer": answer}])


def test_bytes_win_over_a_file_of_that_name(collate, videos, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.mp4").write_bytes(embedded(videos[1])["bytes"])
    monkeypatch.chdir(tmp_path)
    row = {"video": embedded(videos[0]), "question": QUESTION, "answer": ANSWER}
    assert_same(collate([row]), collate([FORMS["question"](videos[0])]))


@pytest.mark.parametrize(
    "path", ["https://x.org/a.mp4?sig=" + "y" * 300, "clips/..", "/", "x" * 300 + ".mp4", "a\0.mp4"]
)
def test_bytes_are_read_whatever_their_path(path, collate, videos):
    row = {"video": {**embedded(videos[0]), "path": path}, "question": QUESTION, "answer": ANSWER}
    assert_same(collate([row]), collate([FORMS["question"](videos[0])]))


@pytest.mark.parametrize("form", [Path, bytearray, memoryview], ids=["Path", "bytearray", "memoryview"])
def test_videos_may_be_one_video_of_any_type(form, collate, videos):
    video = Path(videos[0]) if form is Path else form(Path(videos[0]).read_bytes())
    for row in ({"videos": video}, {"video": video}):
        assert_same(
            collate([{**row, "question": QUESTION, "answer": ANSWER}]), collate([FORMS["question"](videos[0])])
        )


@pytest.mark.parametrize(
    ("settings", "num_frames"),
    [
        ({"num_frames": 2}, 2),
        ({"num_frames": 2.0}, 2),
        ({"fps": 4.0, "max_frames": 2.0}, 2),
        ({"nframes": 2}, 2),
        ({"fps": 2}, 2),
        ({"fps": 4, "max_frames": 2}, 2),
        ({}, 4),
    ],
)
def test_sampling_of_a_part_is_obeyed(settings, num_frames, collate, videos, monkeypatch):
    sampler = collate.prompts.processor.video_processor
    monkeypatch.setattr(sampler, "min_frames", 1, raising=False)
    batch = collate([{"prompt": user({"type": "video", "video": videos[0], **settings}), "completion": ANSWER}])
    assert batch["video_grid_thw"][0, 0] == num_frames // 2  # two frames make a patch
