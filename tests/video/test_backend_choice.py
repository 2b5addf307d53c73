"""One setting chooses what decodes clips, wherever they are read."""

import subprocess
import sys

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.video import VideoLimits, bounded_reading, read_video, set_video_backend


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.delenv("STORM_VIDEO_BACKEND", raising=False)


def test_pyav_reads_where_nothing_is_chosen(counting):
    assert read_video(counting, num_frames=2).backend == "pyav"


def test_choice_of_the_process_is_what_auto_means(counting):
    set_video_backend("decord")
    assert read_video(counting, num_frames=2).backend == "decord"
    assert read_video(counting, num_frames=2, backend="pyav").backend == "pyav"
    set_video_backend("auto")
    assert read_video(counting, num_frames=2).backend == "pyav"


def test_choice_holds_in_processes_that_are_started_later():
    set_video_backend("decord")
    command = [sys.executable, "-c", "from storm_hf.video.backend_choice import video_backend; print(video_backend())"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "decord\n"
    set_video_backend("auto")


def test_choice_of_a_block_comes_before_that_of_the_process(counting, monkeypatch):
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "torchcodec")
    with bounded_reading(VideoLimits(), backend="decord"):
        assert read_video(counting, num_frames=2).backend == "decord"


@pytest.mark.parametrize("name", ["opencv", "PyAV", ""])
def test_backend_that_does_not_exist_is_named(counting, monkeypatch, name):
    with pytest.raises(ConfigurationError, match="auto, pyav, decord, torchcodec"):
        set_video_backend(name)
    if name:
        monkeypatch.setenv("STORM_VIDEO_BACKEND", name)
        with pytest.raises(ConfigurationError, match="STORM_VIDEO_BACKEND"):
            read_video(counting)
