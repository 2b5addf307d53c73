import dataclasses
import pickle
import sys

import numpy as np
import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.thought_video.tiny_pipelines import SHORT_TEXT, SMALL, tiny_ltx, tiny_wan
from tests.video.clips import numbered_frames

from storm_hf.errors import DependencyError
from storm_hf.thought_video import DiffusersGenerator, DiffusersSettings, Rejected
from storm_hf.thought_video.clip_part import cropped_to


# The scheduler of diffusers 0.42 makes an array of a tensor, which numpy 2 asks to be asked for otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
MODELS = {
    "wan2.2-ti2v": lambda folder: tiny_wan(folder, ti2v=True),
    "wan2.1-i2v": lambda folder: tiny_wan(folder, ti2v=False),
    "ltx-i2v": lambda folder: tiny_ltx(folder, conditions=False),
    "ltx-condition": lambda folder: tiny_ltx(folder, conditions=True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    return {family: make(home / family) for family, make in MODELS.items()}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A question asked in the middle of a clip of four seconds."""
    return question(numbered_clip(tmp_path_factory.mktemp("clips")), time_seconds=2.0)


def settings(folders, family, **others):
    return DiffusersSettings(model=str(folders[family]), family=family, call=SHORT_TEXT, **{**SMALL, **others})


def imagine(settings, asked, seed=0, prompt="predict the next seconds"):
    return DiffusersGenerator(settings).generate(asked, prompt=prompt, seed=seed)


@pytest.mark.parametrize("family", MODELS)
def test_same_seed_gives_the_same_video_and_another_seed_another(folders, asked, family):
    generator = DiffusersGenerator(settings(folders, family))
    first, again, other = (generator.generate(asked, prompt="the rider turns left", seed=seed) for seed in (3, 3, 4))
    assert first.frames.shape == (9, 32, 32, 3)
    assert first.frames.dtype == np.uint8
    np.testing.assert_array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_model_loaded_anew_gives_the_same_video(folders, asked):
    one, two = (imagine(settings(folders, "ltx-i2v"), asked) for _ in range(2))
    np.testing.assert_array_equal(one.frames, two.frames)


@pytest.mark.parametrize("offload", ["model", "group"])
def test_where_the_parts_lie_changes_nothing(folders, asked, offload):
    plain, placed = (imagine(settings(folders, "wan2.2-ti2v", offload=where), asked) for where in ("none", offload))
    np.testing.assert_array_equal(plain.frames, placed.frames)


def test_half_precision_keeps_the_parts_that_need_more(folders):
    pipeline = DiffusersGenerator(settings(folders, "wan2.2-ti2v", dtype="bfloat16")).pipeline
    assert (str(pipeline.transformer.dtype), str(pipeline.vae.dtype)) == ("torch.bfloat16", "torch.float32")


def test_prompt_and_negative_prompt_count(folders, asked):
    plain = imagine(settings(folders, "ltx-i2v"), asked)
    prompted = imagine(settings(folders, "ltx-i2v"), asked, prompt="the rider turns left")
    negative = imagine(settings(folders, "ltx-i2v", negative_prompt="the rider"), asked)
    assert not np.array_equal(plain.frames, prompted.frames)
    assert not np.array_equal(plain.frames, negative.frames)


def test_video_begins_with_the_last_frame_that_the_question_sees(folders, asked):
    """Frames at the question's time or later are never shown to the model."""
    key_frames = DiffusersGenerator(settings(folders, "ltx-i2v"))._key_frames(asked)
    last_seen = np.asarray(key_frames.frames[0]).astype(float)
    candidates = np.stack([cropped_to(frame, 32, 32) for frame in numbered_frames(40)]).astype(float)
    assert np.abs(candidates - last_seen).mean(axis=(1, 2, 3)).argmin() == 19


def test_video_can_go_from_the_first_to_the_last_frame(folders, asked):
    for family in ("wan2.1-i2v", "ltx-condition"):
        both = imagine(settings(folders, family, condition="first_and_last"), asked)
        first = imagine(settings(folders, family, condition="first"), asked)
        assert both.frames.shape == first.frames.shape == (9, 32, 32, 3)
        assert not np.array_equal(both.frames, first.frames)


def test_prefix_is_cut_off_again_up_to_the_last_frame_seen(folders, asked):
    continued = settings(folders, "ltx-condition", condition="prefix", num_prefix_frames=9, num_frames=17, fps=10)
    assert imagine(continued, asked).frames.shape == (9, 32, 32, 3)


def test_too_little_seen_for_the_prefix_is_rejected(folders, asked):
    continued = settings(folders, "ltx-condition", condition="prefix", num_prefix_frames=9, num_frames=17, fps=2)
    rejected = imagine(continued, asked)
    assert isinstance(rejected, Rejected)
    assert "4.00 s" in rejected.reason


def test_record_says_where_the_video_comes_from(folders, asked):
    thought = imagine(settings(folders, "wan2.2-ti2v", fps=8), asked, seed=5, prompt="turns left")
    assert (thought.source, thought.generator) == ("wan", str(folders["wan2.2-ti2v"]))
    assert (thought.seed, thought.prompt, thought.fps, thought.license) == (5, "turns left", 8.0, "Apache-2.0")
    assert thought.seen_until_seconds == 2.0


def test_revision_of_a_folder_changes_with_its_weights(folders, tmp_path):
    folder = tiny_ltx(tmp_path / "model", conditions=False)
    before, same = (DiffusersGenerator(settings({"ltx-i2v": at}, "ltx-i2v")).revision for at in (folder, folder))
    weights = next(folder.rglob("vae/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    after = DiffusersGenerator(settings({"ltx-i2v": folder}, "ltx-i2v")).revision
    assert before == same != after
    assert len(after) == 12


def test_broken_clip_is_rejected_before_the_model_is_loaded(tmp_path):
    (tmp_path / "clip.mp4").write_text("no video")
    generator = DiffusersGenerator(DiffusersSettings(model="does/not-exist", family="wan2.1-i2v"))
    rejected = generator.generate(question(tmp_path / "clip.mp4"), prompt="p", seed=0)
    assert rejected.kind == "unreadable"


def test_generator_travels_to_another_process_without_its_model(folders):
    generator = DiffusersGenerator(settings(folders, "ltx-i2v"))
    assert generator.pipeline is not None
    assert len(pickle.dumps(generator)) < 10_000


def test_family_names_the_package_it_lacks(folders, asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(DependencyError, match=r"\[thoughts\]"):
        imagine(settings(folders, "wan2.1-i2v"), asked)


def test_settings_can_be_replaced_one_by_one(folders):
    assert dataclasses.replace(settings(folders, "ltx-i2v"), num_frames=17).value("num_frames") == 17
