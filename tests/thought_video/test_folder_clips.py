from dataclasses import replace

import numpy as np
import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import encode, natural_frames, numbered_frames, numbers, stirred_heap

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.thought_video import ThoughtExample, ThoughtVideo, file_stem, question_clip
from storm_hf.thought_video.clip_part import frame_times
from storm_hf.video import read_video, write_video


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


@pytest.mark.parametrize("moment", [None, 2.5, 9.0])
@pytest.mark.parametrize(
    ("part", "first", "last"),
    [
        ({"start_seconds": 1.0, "end_seconds": 3.0}, 10, 29),
        ({"start_seconds": 1.05}, 11, 39),
        ({"end_seconds": 3.0}, 0, 29),
        ({"start_seconds": 2.0, "end_seconds": 99.0}, 20, 39),
    ],
)
def test_clip_shows_the_part_of_its_question_and_nothing_else(tmp_path, moment, part, first, last):
    last = last if moment is None else min(last, int(moment * 10) - 1)
    shown = read_video(question_clip(question(numbered_clip(tmp_path), **part), thought_from(moment), tmp_path))
    assert numbers(shown.frames) == list(range(first, last + 1))
    np.testing.assert_allclose(shown.timestamps, np.arange(last + 1 - first) / 10, atol=1e-3)


@pytest.mark.parametrize(
    "part", [{"start_seconds": 0.0}, {"end_seconds": 4.0}, {"start_seconds": 0.0, "end_seconds": 9.0}]
)
def test_part_that_is_the_whole_clip_needs_no_cut(tmp_path, part):
    clip = numbered_clip(tmp_path)
    assert question_clip(question(clip, **part), thought_from(None), tmp_path) == clip


@pytest.mark.parametrize("part", [{"start_seconds": 9.0}, {"start_seconds": 2.0, "end_seconds": 2.01}])
def test_part_without_a_frame_is_an_error(tmp_path, part):
    if "end_seconds" in part:
        part["start_seconds"] += 0.005
    with pytest.raises(VideoReadError, match=f"shows no frame from {part['start_seconds']:.3f} s on"):
        question_clip(question(numbered_clip(tmp_path), **part), thought_from(None), tmp_path)


def test_leak_is_found_in_a_clip_that_begins_later(tmp_path):
    asked = question(numbered_clip(tmp_path), start_seconds=1.0)
    words = {"id": asked.id, "question": asked.question, "options": asked.options, "answer": asked.answer}
    thought = replace(thought_from(2.0), seen_from_seconds=1.0)
    assert ThoughtExample(**words, video=question_clip(asked, thought, tmp_path), thought=thought).thought is thought
    longer = question_clip(asked, thought_from(2.2), tmp_path)
    with pytest.raises(DatasetError, match="question_clip"):
        ThoughtExample(**words, video=longer, thought=thought)


def test_cut_of_a_natural_clip_has_the_same_bytes_every_time(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", natural_frames(8), fps=4.0)
    digests = set()
    for copy in range(20):
        stirred_heap(copy)
        digests.add(question_clip(question(clip), thought_from(1.5), tmp_path / str(copy)).read_bytes())
    assert len(digests) == 1


def test_nothing_to_see_is_an_error(tmp_path):
    with pytest.raises(VideoReadError, match="no frame before"):
        question_clip(question(numbered_clip(tmp_path)), thought_from(0.0), tmp_path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("clip-1_a.b", "clip-1_a.b"),
        ("../x", None),
        (".x", None),
        ("ü", None),
        ("x.", None),
        ("nul", "nul-"),
        ("con.1", None),
        ("Clip", "Clip-"),
    ],
)
def test_ids_become_safe_file_names(name, stem):
    made = file_stem(name)
    assert made == stem or len(made) == len(stem or "") + 20
    assert made.startswith(stem or "")


def test_ids_that_differ_in_case_have_files_that_differ_in_more():
    names = ["clip", "Clip", "CLIP", "cLip"]
    assert len({file_stem(name).lower() for name in names}) == len(names)
