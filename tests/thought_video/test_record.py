import numpy as np
import pytest

from storm_hf.errors import DatasetError
from storm_hf.thought_video import ThoughtVideo
from storm_hf.video import write_video


PROVENANCE = {
    "fps": 2.0,
    "source": "simulator",
    "generator": "g",
    "generator_revision": "1",
    "license": "Apache-2.0",
    "seed": 0,
}
FRAMES = np.full((4, 32, 32, 3), 200, dtype=np.uint8)


def test_video_in_memory_is_read_as_it_is():
    assert ThoughtVideo(**PROVENANCE, frames=FRAMES).read() is FRAMES


def test_video_in_a_file_is_decoded(tmp_path):
    path = write_video(tmp_path / "thought.mp4", FRAMES, fps=2.0)
    frames = ThoughtVideo(**PROVENANCE, path=path).read()
    assert frames.shape == FRAMES.shape
    assert np.abs(frames.astype(int) - FRAMES).max() < 5


def test_video_that_is_nowhere_is_refused():
    with pytest.raises(DatasetError, match="neither"):
        ThoughtVideo(**PROVENANCE)


def test_video_that_is_in_two_places_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="both"):
        ThoughtVideo(**PROVENANCE, frames=FRAMES, path=tmp_path)
