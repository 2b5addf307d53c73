"""A file cannot take more memory or time than it may, whatever its header claims."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.video import clips

from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.video import VideoLimits, bounded_reading, limits, read_video


MEGABYTES = 48  # what opening and scanning may cost; each reading below would take at least 256 without limits

READ_ALL = """
import json
import resource
import sys
from storm_hf.errors import VideoReadError
from storm_hf.video import read_video


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


outcomes = {}
for name, (path, wish) in json.load(sys.stdin).items():
    before = peak_megabytes()
    try:
        read_video(path, **wish)
        message = "read"
    except VideoReadError as error:
        message = str(error)
    outcomes[name] = message, peak_megabytes() - before
print(json.dumps(outcomes))
"""


def _jumping(path):
    """A clip whose last frame is shown three years after the others."""
    return clips.encode(path, clips.numbered_frames(5, 720, 1280), times=[0, 10, 20, 30, 10**10])


@pytest.fixture(scope="module")
def ten_hours(tmp_path_factory):
    return clips.repeated(tmp_path_factory.mktemp("long") / "ten_hours.mp4", seconds=36_000, height=240, width=320)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, ten_hours):
    """Messages and cost of reading files that are too large, in a process of its own."""
    folder = tmp_path_factory.mktemp("large")
    small = clips.encode(folder / "small.avi", clips.numbered_frames(3), codec="mpeg4")
    huge = clips.huge(folder / "huge.avi", 16_000)
    files = {
        "ten hours, whole": (ten_hours, {}),
        "ten hours, at a great rate": (ten_hours, {"fps": 1e12}),
        "a great number of frames": (small, {"num_frames": 10**12}),
        "years at two a second": (_jumping(folder / "jumping.mkv"), {"fps": 2}),
        "16k x 16k": (huge, {"num_frames": 1}),
        "16k x 16k that claims 64 x 64": (clips.claiming_size(folder / "liar.avi", huge, 64), {"strict": False}),
        "64 x 48 that claims 16k x 16k": (clips.claiming_size(folder / "braggart.avi", small, 16_000), {}),
    }
    asked = json.dumps({name: (str(path), wish) for name, (path, wish) in files.items()})
    child = subprocess.run([sys.executable, "-c", READ_ALL], input=asked, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ten hours, whole", "36,000 frames of 320 x 240, 8,294,400,000 bytes .* max_total_bytes=4,294,967,296"),
        ("ten hours, at a great rate", "max_total_bytes=4,294,967,296"),
        ("a great number of frames", "1,000,000,000,000 frames of 64 x 48, .* max_total_bytes=4,294,967,296"),
        ("years at two a second", "max_total_bytes=4,294,967,296"),
        ("16k x 16k", "16000 x 16000, 256,000,000 pixels; .* max_frame_pixels=35,651,584"),
        ("16k x 16k that claims 64 x 64", "larger than its header says; .* max_frame_pixels=35,651,584"),
    ],
)
def test_what_is_too_large_is_an_error_and_no_full_memory(outcomes, name, words):
    message, megabytes = outcomes[name]
    with pytest.raises(VideoReadError, match=rf"{words}.* pass limits=VideoLimits\("):
        raise VideoReadError(message)
    assert megabytes < MEGABYTES


def test_small_pictures_whose_header_claims_large_ones_are_read_in_little_memory(outcomes):
    message, megabytes = outcomes["64 x 48 that claims 16k x 16k"]
    assert message == "read"
    assert megabytes < MEGABYTES


def test_few_frames_of_ten_hours_are_read(ten_hours):
    clip = read_video(ten_hours, num_frames=4)
    np.testing.assert_allclose(clip.timestamps, [0, 11_999, 23_999, 35_999])
    assert clip.num_broken == 0


def test_limit_that_is_passed_is_the_limit(counting):
    read_video(counting, num_frames=2, limits=VideoLimits(max_frame_pixels=64 * 48))
    with pytest.raises(VideoReadError, match=r"64 x 48, 3,072 pixels; .*VideoLimits\(max_frame_pixels=3072\)"):
        read_video(counting, limits=VideoLimits(max_frame_pixels=64 * 48 - 1))


def test_total_is_that_of_the_frames_asked(counting):
    enough = VideoLimits(max_total_bytes=2 * 64 * 48 * 3)
    assert len(read_video(counting, num_frames=2, limits=enough).frames) == 2
    with pytest.raises(
        VideoReadError, match=r"3 frames of 64 x 48, 27,648 bytes .*VideoLimits\(max_total_bytes=27648"
    ):
        read_video(counting, num_frames=3, limits=enough)


def test_packets_are_looked_at_up_to_the_limit(counting):
    read_video(counting, num_frames=2, limits=VideoLimits(max_packets=41))  # the last one says that no more come
    with pytest.raises(VideoReadError, match="counting.mp4 has more than max_packets=39 packets"):
        read_video(counting, num_frames=2, limits=VideoLimits(max_packets=39))


def test_picture_that_grows_over_the_limit_is_named_when_strict_and_left_out_when_tolerant(tmp_path):
    path = clips.growing(tmp_path / "growing.h264", [(64, 64)] * 3 + [(720, 1280)] + [(64, 64)] * 2)
    small = VideoLimits(max_frame_pixels=100_000)
    with pytest.raises(VideoReadError, match="1280 x 720, 921,600 pixels; the limit is max_frame_pixels=100,000"):
        read_video(path, limits=small)
    clip = read_video(path, limits=small, strict=False)
    assert clip.frames.shape == (5, 64, 64, 3)
    assert clip.num_broken == 1


@pytest.mark.parametrize("name", ["max_frame_pixels", "max_total_bytes", "max_packets"])
def test_limit_that_no_video_keeps_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"`{name}` must be a whole number of 1 or more, got 0"):
        VideoLimits(**{name: 0})


def test_pyav_looks_at_the_clock_between_packets(counting, monkeypatch):
    seconds = iter(range(10**6))
    monkeypatch.setattr(limits, "monotonic", lambda: next(seconds))
    read_video(counting, timeout_seconds=1000)
    with pytest.raises(VideoReadError, match="counting.mp4 was not read within timeout_seconds=30"):
        read_video(counting, timeout_seconds=30)


def test_long_reading_stops_computing_when_its_time_is_over(ten_hours):
    start = time.process_time()
    read_video(ten_hours, num_frames=4)
    whole = time.process_time() - start
    start = time.process_time()
    with pytest.raises(VideoReadError, match=r"ten_hours.mp4 was not read within timeout_seconds=0.02"):
        read_video(ten_hours, num_frames=4, timeout_seconds=0.02)
    assert time.process_time() - start < whole / 2


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_time_that_is_no_time_is_refused(counting, seconds):
    with pytest.raises(ConfigurationError, match="timeout_seconds above 0"):
        read_video(counting, timeout_seconds=seconds)


def test_block_bounds_the_readings_that_bring_no_bounds(counting):
    with bounded_reading(VideoLimits(max_frame_pixels=64 * 48 - 1)):
        with pytest.raises(VideoReadError, match="max_frame_pixels=3,071"):
            read_video(counting)
        read_video(counting, limits=VideoLimits())
    read_video(counting)


def test_block_gives_each_reading_its_time(counting, monkeypatch):
    seconds = iter(range(10**6))
    monkeypatch.setattr(limits, "monotonic", lambda: next(seconds))
    with bounded_reading(VideoLimits(), timeout_seconds=30):
        with pytest.raises(VideoReadError, match="timeout_seconds=30"):
            read_video(counting)
        read_video(counting, timeout_seconds=1000)


def test_block_with_a_time_that_is_no_time_is_refused():
    with pytest.raises(ConfigurationError, match="timeout_seconds above 0"), bounded_reading(VideoLimits(), 0):
        pass
