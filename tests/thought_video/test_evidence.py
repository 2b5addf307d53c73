import numpy as np
import pytest
from tests.thought_video.questions import FPS, numbered_clip, question
from tests.video.clips import numbers

from storm_hf.annotations import Box, KeyFrame
from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import EvidenceGenerator, Rejected, question_clip
from storm_hf.thought_video.evidence import shared_frames
from storm_hf.video import read_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Forty frames in four seconds."""
    return numbered_clip(tmp_path_factory.mktemp("clips"))


def shown(clip, num_frames=4, **fields):
    return EvidenceGenerator(num_frames=num_frames).generate(question(clip, **fields), seed=7)


@pytest.mark.parametrize(
    ("intervals", "frames"),
    [
        (((1.0, 2.0),), [11, 13, 16, 18]),
        (((3.0, 3.5), (0.5, 1.0)), [6, 8, 31, 33]),
        (((1.0, 1.5), (1.2, 2.0)), [11, 13, 16, 18]),
        (((0.0, 0.1), (1.0, 4.0)), [0, 15, 25, 35]),
        (((3.0, 4.6),), [31, 33, 36, 38]),
    ],
    ids=["one", "sorted", "joined", "each has one", "rounded beyond the end"],
)
def test_intervals_are_shown_in_the_order_of_the_clip(clip, intervals, frames):
    thought = shown(clip, intervals=intervals)
    assert numbers(thought.frames) == frames
    assert (thought.source, thought.license, thought.seed) == ("evidence", "CC0-1.0", 7)


def test_key_frames_share_the_frames_evenly_and_come_before_intervals(clip):
    frames = (KeyFrame(seconds=0.5), KeyFrame(seconds=2.0), KeyFrame(seconds=3.9))
    thought = shown(clip, num_frames=7, key_frames=frames, intervals=((1.0, 2.0),))
    assert numbers(thought.frames) == [5, 5, 5, 20, 20, 39, 39]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "no evidence"),
        ({"intervals": ((5.1, 6.0),)}, "outside the clip"),
        ({"intervals": ((4.2, 4.8),)}, "outside the clip"),
        ({"intervals": ((1.0, 5.2),)}, "outside the clip"),
        ({"key_frames": (KeyFrame(seconds=5.5),)}, "outside the clip"),
        ({"key_frames": tuple(KeyFrame(seconds=second / 10) for second in range(5))}, "too many moments"),
    ],
)
def test_evidence_that_cannot_be_shown_is_rejected_with_its_reason(clip, fields, kind):
    outcome = shown(clip, **fields)
    assert isinstance(outcome, Rejected)
    assert outcome.kind == kind


@pytest.mark.parametrize(
    "part", [{"time_seconds": 2.0}, {"end_seconds": 2.0}, {"start_seconds": 0.5, "time_seconds": 2.0}]
)
@pytest.mark.parametrize(
    ("evidence", "is_shown"),
    [
        ({"intervals": ((1.0, 2.0),)}, True),
        ({"intervals": ((1.0, 2.1),)}, False),
        ({"intervals": ((2.0, 3.0),)}, False),
        ({"intervals": ((1.0, 1.5), (3.0, 3.5))}, False),
        ({"key_frames": (KeyFrame(seconds=1.95),)}, True),
        ({"key_frames": (KeyFrame(seconds=2.0),)}, False),
    ],
)
def test_nothing_after_the_questions_moment_is_ever_shown(clip, tmp_path, part, evidence, is_shown):
    asked = question(clip, **part, **evidence)
    outcome = EvidenceGenerator(num_frames=4).generate(asked, seed=0)
    if not is_shown:
        assert outcome.kind == "not seen"
        return
    seen = numbers(read_video(question_clip(asked, outcome, tmp_path)).frames)
    assert max(numbers(outcome.frames)) <= max(seen) == 2 * FPS - 1


def test_evidence_before_the_part_of_the_question_is_not_seen(clip):
    assert shown(clip, start_seconds=2.0, intervals=((1.0, 1.5),)).kind == "not seen"


def test_box_is_drawn_around_its_object_in_its_own_frames(clip):
    box = Box(left=0.25, top=0.25, right=0.75, bottom=0.75)
    frames = (KeyFrame(seconds=1.0, boxes=(box,)), KeyFrame(seconds=2.0))
    asked = question(clip, key_frames=frames)
    plain = EvidenceGenerator(num_frames=2, draws_boxes=False).generate(asked, seed=0).frames
    boxed = EvidenceGenerator(num_frames=2).generate(asked, seed=0).frames
    rows, columns = np.nonzero((plain[0] != boxed[0]).any(axis=-1))
    height, width = plain.shape[1:3]
    assert (rows.min(), rows.max()) == (round(0.25 * (height - 1)), round(0.75 * (height - 1)))
    assert (columns.min(), columns.max()) == (round(0.25 * (width - 1)), round(0.75 * (width - 1)))
    np.testing.assert_array_equal(plain[0, 20:28, 25:40], boxed[0, 20:28, 25:40])
    np.testing.assert_array_equal(plain[1], boxed[1])


def test_label_has_one_colour_throughout(clip):
    sides = {"left": 0.2, "top": 0.2, "right": 0.8, "bottom": 0.8}
    cup, hand = (Box(**sides, label=label) for label in ("cup", "hand"))
    drawn = [(hand,), (cup,), (hand,)]
    frames = tuple(KeyFrame(seconds=float(second), boxes=boxes) for second, boxes in enumerate(drawn))
    boxed = shown(clip, num_frames=3, key_frames=frames).frames
    colours = [tuple(frame[round(0.2 * 47), 32]) for frame in boxed]
    assert colours[0] == colours[2] != colours[1]


def test_broken_clip_is_rejected(clip, tmp_path):
    cut_off = tmp_path / "cut.mp4"
    cut_off.write_bytes(clip.read_bytes()[:-200])
    assert shown(cut_off, intervals=((1.0, 2.0),)).kind == "unreadable"


@pytest.mark.parametrize(("lengths", "counts"), [([1, 1, 1], [3, 3, 2]), ([0, 0], [4, 4]), ([0.001, 9, 1], [1, 6, 1])])
def test_frames_are_shared_by_length_and_each_moment_has_one(lengths, counts):
    assert shared_frames(lengths, 8) == counts


def test_number_of_frames_is_checked():
    with pytest.raises(ConfigurationError, match="`num_frames` must be a whole number of 1 or more, got 0"):
        EvidenceGenerator(num_frames=0)
