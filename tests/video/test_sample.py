"""Frames are chosen by the time at which they are shown."""

import numpy as np
import pytest

from storm_hf.errors import DatasetError
from storm_hf.video.sample import FrameSelection


REGULAR = np.arange(10) / 10
WAITING = np.array([0.0, 0.1, 0.2, 10.0])


@pytest.mark.parametrize(
    ("times", "wish", "chosen"),
    [
        (REGULAR, {}, range(10)),
        (REGULAR, {"num_frames": 10}, range(10)),
        (REGULAR, {"num_frames": 2}, [0, 9]),
        (REGULAR, {"num_frames": 1}, [4]),
        (REGULAR, {"num_frames": 19}, np.arange(19) // 2),
        (REGULAR, {"fps": 10}, range(10)),
        (REGULAR, {"fps": 20}, np.arange(20) // 2),
        (REGULAR, {"fps": 0.1}, [0]),
        (REGULAR, {"indices": (3, 1)}, [3, 1]),
        (WAITING, {"num_frames": 3}, [0, 2, 3]),
        (WAITING, {"fps": 0.5}, [0, 2, 2, 2, 2, 3]),
        (np.zeros(1), {"num_frames": 2}, [0, 0]),
        (np.zeros(1), {"fps": 2}, [0]),
    ],
)
def test_chosen_frames(times, wish, chosen):
    assert FrameSelection(**wish).choose(times).tolist() == list(chosen)


def test_times_rounded_by_a_container_still_give_every_frame():
    rounded = np.round(np.arange(300) / 29.97, 3)
    assert FrameSelection(num_frames=300).choose(rounded).tolist() == list(range(300))


@pytest.mark.parametrize("indices", [[10], [-1]])
def test_frames_outside_the_video_are_refused(indices):
    with pytest.raises(DatasetError, match="from 0 to 9, since the video has 10 frames"):
        FrameSelection(indices=indices).choose(REGULAR)
