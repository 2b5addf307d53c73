"""Files that were cut, and clips in forms that trip other readers: each is read, or refused in one sentence."""

import os

import pytest
from tests.video import clips

from storm_hf.errors import VideoReadError
from storm_hf.video import read_video


@pytest.fixture
def stream(tmp_path):
    """An MPEG transport stream of forty frames, a keyframe at least every ten."""
    return clips.encode(tmp_path / "whole.ts", clips.numbered_frames(40), container="mpegts", keyframe_every=10)


@pytest.mark.parametrize("lost_bytes", [0, 77], ids=["between packets", "within a packet"])
@pytest.mark.parametrize("strict", [True, False])
def test_transport_stream_cut_at_its_beginning_gives_what_is_left(tmp_path, stream, lost_bytes, strict):
    data = stream.read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(data[len(data) // 188 // 3 * 188 + lost_bytes :])
    clip = read_video(path, strict=strict)
    shown = clips.numbers(clip.frames)
    assert 10 < len(shown) < 40
    assert shown == list(range(40 - len(shown), 40))
    assert clip.timestamps[0] == 0
    assert clip.duration == pytest.approx((len(shown) - 1) / 10, abs=1e-3)


def test_transport_stream_cut_at_both_ends_gives_true_times(tmp_path, stream):
    data = stream.read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(data[len(data) // 3 + 77 : len(data) * 2 // 3 + 11])
    clip = read_video(path, strict=False)
    shown = clips.numbers(clip.frames)
    assert clip.timestamps * 10 == pytest.approx([number - shown[0] for number in shown], abs=1e-2)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 0.97, 0.99])
def test_download_that_broke_off_gives_the_frames_that_came(tmp_path, share):
    whole = clips.encode(
        tmp_path / "whole.mp4", clips.numbered_frames(40, 240, 320), keyframe_every=1, movflags="faststart"
    )
    path = clips.cut_off(tmp_path / "cut.mp4", whole, share)
    with pytest.raises(VideoReadError, match="cut.mp4 is damaged: .* Pass strict=False"):
        read_video(path)
    clip = read_video(path, strict=False)
    shown = clips.numbers(clip.frames)
    assert clip.num_broken > 0
    assert abs(clip.num_decoded - 40 * share) < 6
    assert shown[: clip.num_decoded] == list(range(clip.num_decoded))
    assert set(shown[clip.num_decoded :]) <= {clip.num_decoded - 1}  # the packet that was cut in two


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("strict", [True, False])
def test_file_cut_off_before_its_index_is_refused(tmp_path, share, strict):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(40), keyframe_every=7)
    path = clips.cut_off(tmp_path / "cut.mp4", whole, share)
    with pytest.raises(VideoReadError, match=r"cut.mp4 (is not a video: it is damaged, cut off|holds no)") as error:
        read_video(path, strict=strict)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 0.97, 0.99])
def test_decord_reads_a_broken_download_as_pyav_or_refuses_it(tmp_path, share):
    whole = clips.encode(tmp_path / "whole.mp4", clips.numbered_frames(40), keyframe_every=7, movflags="faststart")
    path = clips.cut_off(tmp_path / "cut.mp4", whole, share)
    with pytest.raises(VideoReadError, match=r"cut.mp4 .*(decord|no frame)"):
        read_video(path, backend="decord", strict=False, timeout_seconds=60)


def test_moving_picture_of_the_old_web_is_read(tmp_path):
    path = clips.encode(tmp_path / "old.gif", clips.numbered_frames(20), codec="gif", pix_fmt="rgb8")
    assert clips.numbers(read_video(path, num_frames=3).frames) == [0, 9, 19]


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with pytest.raises(VideoReadError, match=r"pipe.mp4 is a pipe or a device"):
        read_video(path)
