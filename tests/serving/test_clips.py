"""Requests about one clip go on from one reading of it, and are answered as if each had read its own."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastapi.testclient import TestClient
from tests.serving.conftest import data_uri, in_parts
from tests.video import clips

from storm_hf.evaluation import load_checkpoint
from storm_hf.serving.chat import ChatModel
from storm_hf.serving.server import build_app


TEXTS = ("Which cup hides the ball?", "Where?", "What happens next in the video?")


@pytest.fixture(scope="module")
def loaded(storm_folder):
    return load_checkpoint(str(storm_folder))


@pytest.fixture
def client(loaded):
    """A client of a server in this process, with its model, by its memory for clips."""

    def make(max_prefix_bytes=2**30):
        chat = ChatModel("tiny-storm", *loaded, max_new_tokens=16, max_prefix_bytes=max_prefix_bytes)
        return TestClient(build_app(chat), base_url="http://testserver")

    return make


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory):
    return clips.encode(tmp_path_factory.mktemp("other") / "clip.mp4", clips.numbered_frames(6), fps=2)


def ask(client, clip, text, **fields):
    """The texts of an answer's choices."""
    messages = in_parts({"type": "video_url", "video_url": {"url": data_uri(clip)}}, question=text)
    answer = client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 6, **fields})
    assert answer.status_code == 200, answer.text
    return [choice["message"]["content"] for choice in answer.json()["choices"]]


def counts(client):
    health = client.get("/health").json()
    return {name: health[name] for name in ("clips_read", "clips_reused", "kept_clips")}


REQUESTS = [
    {},
    {"num_latents": 0},
    {"latents": "zero"},
    {"latents": "noise_per_question"},
    {"latents": "latents_only"},
    {"temperature": 1.0, "seed": 3, "n": 3},
]


@pytest.mark.parametrize("fields", REQUESTS, ids=json.dumps)
def test_answers_that_go_on_from_a_clip_are_those_of_whole_prompts(client, clip, other_clip, fields):
    with client() as keeping, client(max_prefix_bytes=0) as reading:
        for text in TEXTS:
            for each in (clip, other_clip):
                assert ask(keeping, each, text, **fields) == ask(reading, each, text, **fields)
        reads = 0 if fields.get("latents") == "latents_only" else 2
        assert counts(keeping)["clips_read"] == counts(keeping)["kept_clips"] == reads
        assert set(counts(reading).values()) == {0}


def test_donors_clip_is_kept_too(client, clip, other_clip):
    donor = in_parts({"type": "video_url", "video_url": {"url": data_uri(other_clip)}}, question=TEXTS[0])
    with client() as keeping, client(max_prefix_bytes=0) as reading:
        answers = [ask(each, clip, TEXTS[0], latents="donor", donor_messages=donor) for each in (keeping, reading)]
        assert counts(keeping)["kept_clips"] == 2
    assert answers[0] == answers[1]


def test_same_request_has_the_same_answer_whether_its_clip_was_kept_or_not(client, clip):
    with client() as keeping:
        fields = {"temperature": 1.5, "seed": 7, "n": 2}
        assert ask(keeping, clip, TEXTS[0], **fields) == ask(keeping, clip, TEXTS[0], **fields)
        assert counts(keeping) == {"clips_read": 1, "clips_reused": 3, "kept_clips": 1}


def test_requests_at_once_about_two_clips_are_answered_as_one_after_the_other(client, clip, other_clip):
    asked = [(each, text) for text in TEXTS for each in (clip, other_clip)] * 4
    with client() as keeping:
        expected = {(each, text): ask(keeping, each, text) for each, text in asked}
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda pair: ask(keeping, *pair), asked))
        assert found == [expected[pair] for pair in asked]
        assert counts(keeping)["clips_read"] == 2


def test_memory_for_clips_is_bounded(client, clip, other_clip):
    with client() as keeping:
        ask(keeping, clip, TEXTS[0])
        size = keeping.get("/health").json()["kept_clip_bytes"]
    with client(max_prefix_bytes=size) as keeping:
        for each in (clip, other_clip, clip):
            ask(keeping, each, TEXTS[0])
        assert counts(keeping)["kept_clips"] == 1
        assert keeping.get("/health").json()["kept_clip_bytes"] <= size


def test_conversation_that_goes_on_about_its_clip_goes_on_from_it(client, clip):
    first = in_parts({"type": "video_url", "video_url": {"url": data_uri(clip)}}, question=TEXTS[0])
    turns = [*first, {"role": "assistant", "content": "B"}, {"role": "user", "content": TEXTS[1]}]
    with client() as keeping, client(max_prefix_bytes=0) as reading:
        ask(keeping, clip, TEXTS[0])
        body = {"messages": turns, "max_tokens": 6}
        found, expected = (each.post("/v1/chat/completions", json=body).json() for each in (keeping, reading))
        assert counts(keeping) == {"clips_read": 1, "clips_reused": 1, "kept_clips": 1}
    assert found["choices"] == expected["choices"]


@torch.no_grad()
def test_clip_that_cannot_be_read_leaves_nothing_behind(client, loaded, clip, monkeypatch):
    with client() as keeping:
        monkeypatch.setattr(loaded[0].backbone.base_model.visual, "forward", lambda *_, **__: 1 / 0)
        messages = in_parts({"type": "video_url", "video_url": {"url": data_uri(clip)}}, question=TEXTS[0])
        assert keeping.post("/v1/chat/completions", json={"messages": messages}).status_code == 500
        monkeypatch.undo()
        assert counts(keeping)["kept_clips"] == 0
        assert ask(keeping, clip, TEXTS[0])
