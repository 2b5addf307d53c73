import numpy as np
import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import damaged, numbers

from storm_hf.errors import VideoReadError
from storm_hf.thought_video.clip_part import (
    cropped_to,
    end_of,
    frame_times,
    read_frames,
    read_last_seen,
    read_seen,
    seen_frames,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Forty frames in four seconds."""
    return numbered_clip(tmp_path_factory.mktemp("clips"))


def test_times_are_those_of_the_frames(clip):
    np.testing.assert_allclose(frame_times(clip), np.arange(40) / 10)
    assert end_of(frame_times(clip)) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("part", "first", "last"),
    [
        ({}, 0, 39),
        ({"time_seconds": 2.0}, 0, 19),
        ({"time_seconds": 2.05}, 0, 20),
        ({"start_seconds": 1.0, "end_seconds": 3.0}, 10, 29),
        ({"start_seconds": 1.0, "end_seconds": 3.0, "time_seconds": 2.0}, 10, 19),
        ({"end_seconds": 1.0, "time_seconds": 2.0}, 0, 9),
    ],
)
def test_question_sees_its_part_until_it_is_asked(clip, part, first, last):
    seen = seen_frames(question(clip, **part), frame_times(clip))
    assert seen.tolist() == list(range(first, last + 1))


def test_key_frames_spread_over_what_is_seen(clip):
    assert numbers(read_seen(question(clip, time_seconds=2.1), 3)) == [0, 10, 20]


def test_last_frames_end_with_the_last_one_seen(clip):
    assert numbers(read_last_seen(question(clip, time_seconds=2.0), 3, fps=5)) == [15, 17, 19]


def test_more_last_frames_than_are_seen_is_an_error(clip):
    with pytest.raises(VideoReadError, match=r"shows 0\.90 s before the question 'q1'"):
        read_last_seen(question(clip, time_seconds=1.0), 3, fps=1)


def test_question_before_anything_is_seen_is_an_error(clip):
    with pytest.raises(VideoReadError, match="no frame before"):
        read_seen(question(clip, time_seconds=0.0), 1)


def test_frames_from_after_the_moment_are_not_handed_out(clip):
    with pytest.raises(VideoReadError, match="cannot be cut safely"):
        read_frames(clip, np.array([18, 20]), before=2.0)


def test_frames_that_the_clip_does_not_have_are_an_error(clip):
    with pytest.raises(VideoReadError, match="fewer frames"):
        read_frames(clip, np.array([40]))


def test_damaged_clip_is_never_filled_from_what_comes_later(clip, tmp_path):
    broken = damaged(tmp_path / "broken.mp4", clip, 0.2, 0.6)
    with pytest.raises(VideoReadError, match="damaged"):
        read_seen(question(broken, time_seconds=2.0), 20)


def test_crop_keeps_the_middle():
    frame = np.zeros((8, 24, 3), dtype=np.uint8)
    frame[:, 8:16] = 255
    assert cropped_to(frame, 8, 8).min() == 255
    assert cropped_to(frame, 4, 4).shape == (4, 4, 3)
