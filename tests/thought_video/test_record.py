import numpy as np
import pytest

from storm_hf.errors import DatasetError
from storm_hf.thought_video import Rejected, ThoughtExample, ThoughtVideo
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


def test_video_in_memory_again_is_decoded_once(tmp_path):
    path = write_video(tmp_path / "thought.mp4", FRAMES, fps=2.0)
    loaded = ThoughtVideo(**PROVENANCE, path=path, prompt="p").in_memory()
    path.unlink()
    assert loaded.read().shape == FRAMES.shape
    assert loaded.prompt == "p"


@pytest.mark.parametrize(("until", "leaks"), [(2.0, False), (1.5, True), (0.5, True), (None, False)])
def test_example_whose_clip_shows_what_the_thought_begins_with_is_refused(tmp_path, until, leaks):
    """The clip has frames at 0, 0.5, 1 and 1.5 seconds."""
    clip = write_video(tmp_path / "clip.mp4", FRAMES, fps=2.0)
    words = {"id": "q", "question": "What next?", "options": (), "answer": "it falls"}
    thought = ThoughtVideo(**PROVENANCE, frames=FRAMES, seen_until_seconds=until)
    if leaks:
        with pytest.raises(DatasetError, match="question_clip"):
            ThoughtExample(**words, video=clip, thought=thought)
    else:
        assert ThoughtExample(**words, video=clip, thought=thought).video == clip


def test_reason_has_a_kind():
    assert Rejected("too short: it ends: now").kind == "too short"
