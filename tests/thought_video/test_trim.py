import numpy as np
import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import encode, numbered_frames, numbers

from storm_hf.errors import VideoReadError
from storm_hf.thought_video import ThoughtVideo, file_stem, question_clip
from storm_hf.thought_video.clip_part import frame_times
from storm_hf.video import read_video


def thought_from(seconds):
    frames = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    known = {"source": "s", "generator": "g", "generator_revision": "1", "license": "x", "seed": 0}
    return ThoughtVideo(fps=1.0, frames=frames, seen_until_seconds=seconds, **known)


@pytest.mark.parametrize("b_frames", [0, 3])
def test_cut_clip_ends_before_the_moment(tmp_path, b_frames):
    """Pictures that refer to later ones are the reason why the cut is encoded again."""
    clip = encode(tmp_path / "clip.mp4", numbered_frames(40), **{"x264-params": f"bframes={b_frames}"})
    cut = question_clip(question(clip), thought_from(1.25), tmp_path)
    shown = read_video(cut)
    assert numbers(shown.frames) == list(range(13))
    np.testing.assert_allclose(shown.timestamps, np.arange(13) / 10, atol=1e-3)


def test_long_clip_is_cut_in_pieces(tmp_path):
    clip = encode(tmp_path / "clip.mp4", np.concatenate([numbered_frames(64)] * 3), fps=30)
    cut = question_clip(question(clip), thought_from(150 / 30), tmp_path)
    assert numbers(read_video(cut).frames) == [*range(64), *range(64), *range(22)]


def test_frames_keep_their_times_where_the_rate_varies(tmp_path):
    times = [0, 10, 15, 60, 65, 100, 150]
    clip = encode(tmp_path / "clip.mp4", numbered_frames(7), times=times)
    cut = question_clip(question(clip), thought_from(1.0), tmp_path)
    np.testing.assert_allclose(frame_times(cut), [0.0, 0.1, 0.15, 0.6, 0.65], atol=2e-3)


def test_odd_sizes_lose_a_row_and_a_column(tmp_path):
    frames = numbered_frames(8, 49, 67)
    clip = encode(tmp_path / "clip.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    cut = question_clip(question(clip), thought_from(0.4), tmp_path)
    assert read_video(cut).frames.shape == (4, 48, 66, 3)


def test_clip_that_may_be_seen_to_its_end_is_used_as_it_is(tmp_path):
    clip = numbered_clip(tmp_path)
    for seconds in (None, 4.0, 100.0):
        assert question_clip(question(clip), thought_from(seconds), tmp_path) == clip


def test_same_cut_has_the_same_bytes_and_is_made_once(tmp_path):
    asked = question(numbered_clip(tmp_path))
    one, two = (question_clip(asked, thought_from(1.0), tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    one.write_bytes(b"kept")
    assert question_clip(asked, thought_from(1.0), tmp_path / "one").read_bytes() == b"kept"
    assert question_clip(asked, thought_from(1.5), tmp_path / "one") != one


def test_nothing_to_see_is_an_error(tmp_path):
    with pytest.raises(VideoReadError, match="no frame before"):
        question_clip(question(numbered_clip(tmp_path)), thought_from(0.0), tmp_path)


@pytest.mark.parametrize(("name", "is_kept"), [("clip-1_a.b", True), ("../x", False), (".x", False), ("ü", False)])
def test_ids_become_safe_file_names(name, is_kept):
    assert (file_stem(name) == name) is is_kept
    assert len(file_stem(name)) == (len(name) if is_kept else 20)
