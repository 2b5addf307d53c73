"""One setting chooses what decodes clips, wherever they are read."""

import subprocess
import sys

import pytest
from tests.video.fake_libraries import GIVE_UP, write_decord, write_torchcodec

from storm_hf.errors import ConfigurationError, DependencyError
from storm_hf.video import VideoLimits, bounded_reading, read_video, set_video_backend
from storm_hf.video.library_backends import other_backend, video_backend


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "pyav")  # restored at the end, whatever a test sets
    monkeypatch.delenv("STORM_VIDEO_BACKEND")


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
    command = [
        sys.executable,
        "-c",
        "from storm_hf.video.library_backends import video_backend; print(video_backend())",
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "decord\n"


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


def test_backend_that_is_not_installed_is_not_chosen(monkeypatch):
    monkeypatch.setattr("storm_hf.video.library_process.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DependencyError, match="`decord` is missing"):
        set_video_backend("decord")
    assert video_backend() == "pyav"


def test_backend_that_does_not_load_is_not_chosen(libraries):
    write_torchcodec(libraries, "raise RuntimeError('no FFmpeg here')")
    with pytest.raises(DependencyError, match="does not load .no FFmpeg here"):
        set_video_backend("torchcodec")
    assert video_backend() == "pyav"


def test_library_that_loads_is_kept_for_the_first_clip(libraries):
    write_decord(libraries, GIVE_UP)
    for _ in range(2):
        set_video_backend("decord")
    assert len((libraries / "processes").read_text().split()) == 1


def test_records_name_every_backend_but_pyav(monkeypatch):
    assert other_backend() == other_backend("pyav") == {}
    assert other_backend("decord") == {"video_backend": "decord"}
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "decord")
    assert other_backend("auto") == {"video_backend": "decord"}
