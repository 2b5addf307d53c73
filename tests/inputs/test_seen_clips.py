import copy
import pickle

import numpy as np
import pytest
import torch
from tests.tiny import tiny_processor

from storm_hf.inputs.seen_clips import prepared_once


SETTINGS = {"do_sample_frames": False, "return_tensors": "pt"}


def frames(seed=0, count=4):
    return list(np.random.default_rng(seed).integers(255, size=(count, 56, 56, 3), dtype=np.uint8))


@pytest.fixture
def remembering():
    return prepared_once(tiny_processor()).video_processor


def test_same_clips_give_the_same_pixels_without_work(remembering):
    first = remembering([frames()], **SETTINGS)
    again = remembering([[frame.copy() for frame in frames()]], **SETTINGS)
    stock = tiny_processor().video_processor([frames()], **SETTINGS)
    assert again["pixel_values_videos"] is first["pixel_values_videos"]
    assert torch.equal(first["pixel_values_videos"], stock["pixel_values_videos"])


@pytest.mark.parametrize(
    ("clips", "settings"),
    [
        ([frames(seed=1)], {}),
        ([frames(count=6)], {}),
        ([frames(), frames()], {}),
        ([frames()[::-1]], {}),
        ([frames()], {"do_rescale": False}),
    ],
    ids=["others", "longer", "two", "backwards", "settings"],
)
def test_anything_else_is_prepared_as_by_the_processor_itself(remembering, clips, settings):
    remembering([frames()], **SETTINGS)
    found = remembering(clips, **SETTINGS, **settings)
    stock = tiny_processor().video_processor(clips, **SETTINGS, **settings)
    assert torch.equal(found["pixel_values_videos"], stock["pixel_values_videos"])


def test_frames_that_are_overwritten_in_place_are_another_clip(remembering):
    buffer = frames()
    remembering([buffer], **SETTINGS)
    for frame, other in zip(buffer, frames(seed=1), strict=True):
        frame[:] = other
    found = remembering([buffer], **SETTINGS)
    stock = tiny_processor().video_processor([frames(seed=1)], **SETTINGS)
    assert torch.equal(found["pixel_values_videos"], stock["pixel_values_videos"])


def test_clip_that_comes_in_between_from_another_thread_is_not_taken_for_it(remembering, monkeypatch):
    first = remembering([frames()], **SETTINGS)
    compare = np.array_equal

    def interrupted(*pair):
        monkeypatch.setattr(np, "array_equal", compare)
        remembering([frames(seed=1)], **SETTINGS)
        return compare(*pair)

    monkeypatch.setattr(np, "array_equal", interrupted)
    assert remembering([frames()], **SETTINGS)["pixel_values_videos"] is first["pixel_values_videos"]


def test_what_is_taken_out_of_a_result_is_in_the_next_one(remembering):
    remembering([frames()], **SETTINGS).pop("video_grid_thw")
    assert "video_grid_thw" in remembering([frames()], **SETTINGS)


def test_copies_and_settings_are_those_of_the_processor(remembering):
    assert remembering.merge_size == tiny_processor().video_processor.merge_size
    for other in (copy.deepcopy(remembering), pickle.loads(pickle.dumps(remembering))):
        assert other.patch_size == remembering.patch_size
