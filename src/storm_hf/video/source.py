"""Opening of a video file: its video stream, or one sentence why there is none.

FFmpeg knows hundreds of formats. Some of them are playlists, patterns of names or scripts that make it open other files, and
most were never meant for untrusted files. Only those of this list are read.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from storm_hf.errors import VideoReadError
from storm_hf.video.clip_file import ClipFile, check_file, raise_machine_fault, system_errors_named
from storm_hf.video.limits import ReadingBounds
from storm_hf.video.sample import check_sample_tables


_VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,kux,asf,ogg,ogv,nut,mxf,rm,dv,wtv,nsv,swf,amv,gxf,ivf,"
    "obu,av1,h261,h263,h264,hevc,vvc,evc,m4v,mpegvideo,mjpeg,vc1,vc1test,dirac,cavsvideo,yuv4mpegpipe,gif,apng"
)
_IMAGE_FORMATS = "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,ppm_pipe,pgm_pipe,j2k_pipe,jpegxl_pipe"
_SOUND_FORMATS = "mp3,wav,w64,aiff,flac,aac,ac3,eac3,au,caf,amr,ape,wv,tta,dts,truehd"  # to name what they are
_FORMATS = f"{_VIDEO_FORMATS},{_IMAGE_FORMATS},{_SOUND_FORMATS}"

_SNIFFED_BYTES = 1024
_PLAYLIST = re.compile(
    rb"\s*(#extm3u|ffconcat|\[playlist\]|<\?xml[^>]*>\s*<(mpd|smil|asx|playlist)|<(mpd|smil|asx)|v=0\r?\n)"
)
_NUMBERED = re.compile(r"%\d*d|%0\d+d")
_TAGGED_BYTES = 2**18
# The four characters of a codec in an MP4 sample description and an AVI stream header, and Matroska's name of one.
_CODEC_TAG = re.compile(rb"stsd.{12}([ -~]{4})|vids([ -~]{4})|(V_[A-Za-z0-9/_]+)", re.DOTALL)


def _describe_content(path: Path) -> str:
    """Describe a file that cannot be opened as a video, by its name and first bytes."""
    beginning = _read(path, 0, _SNIFFED_BYTES).lstrip().lower()
    if _PLAYLIST.match(beginning):
        return "it is a playlist, which only names other files"
    if _NUMBERED.search(path.name):
        return "it is not of a kind that is read under such a name, which is a pattern for many files"
    if beginning.startswith((b"<!doctype html", b"<html")) or b"<html" in beginning:
        return "it is an HTML page, as a failed download leaves behind"
    if b"<svg" in beginning:
        return "it is an SVG drawing"
    if beginning.isascii() and b"\0" not in beginning:
        return "it is text"
    return "it is damaged, cut off before its index, or of an unknown kind"


def _codec_tag(path: Path) -> str:
    """Find the name that a file has for the codec of its pictures; "unknown" where it is in no known place."""
    size = path.stat().st_size
    for start in (0, max(0, size - _TAGGED_BYTES)):
        if match := _CODEC_TAG.search(_read(path, start, _TAGGED_BYTES)):
            return next(filter(None, match.groups())).decode("ascii").strip() or "unknown"
    return "unknown"


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


_CONTAINER_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
_COUNTED_PACKETS = 2048  # of a file with several videos, to distinguish a film from a picture
_WIDEST_PIXEL = 8  # a pixel that is wider, or higher, than this is an error of the header


@contextmanager
def open_video(path: Path, bounds: ReadingBounds | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the video stream that a player would show.

    Args:
        path (`Path`):
            The file.
        bounds ([`ReadingBounds`], *optional*):
            Limits of the reading. None for the default limits and no time-out.

    Yields:
        `tuple[InputContainer, VideoStream]`: The container and the stream, closed afterwards. Its decoder refuses
        pictures that are too large before it allocates them.

    Raises:
        VideoReadError: If the file is missing, a folder, no file, empty, of a kind that is not read, no video, only sound, of
            a codec that cannot be decoded, or too large.
        MachineError: If the system cannot read the file.
    """
    check_file(path)
    with system_errors_named(path):
        check_sample_tables(path)
    bounds = bounds or ReadingBounds(path)
    decoder_options = {"max_pixels": str(bounds.limits.max_frame_pixels)}
    with _opened(path, bounds, decoder_options) as container:
        stream = _moving_picture(path, container, bounds)
        _check_frame_size(path, stream, bounds)
        stream.codec_context.options = decoder_options
        yield container, stream


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel over its height, as a player shows it; 1 where the header claims nothing, or what cannot be."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL else Fraction(1)


def shown_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height, in square pixels, of a picture whose pixels have this aspect. An even width stays even."""
    step = 1 if width % 2 else 2
    return (width, height) if aspect == 1 else (max(step, round(width * aspect / step) * step), height)


@contextmanager
def _opened(path: Path, bounds: ReadingBounds, options: dict[str, str]) -> Iterator[InputContainer]:
    """Open a file; FFmpeg decodes some of it already now, so that the options matter."""
    bounds.check_time()
    with closing(ClipFile(path)) as file:
        try:
            with _container(file, path, bounds, options) as container:
                yield container
        finally:
            file.check()


def _container(file: ClipFile, path: Path, bounds: ReadingBounds, options: dict[str, str]) -> InputContainer:
    try:
        return av.open(
            file,
            "r",
            metadata_errors="ignore",
            options=options,
            container_options=_CONTAINER_OPTIONS,
            timeout=bounds.remaining_seconds,
        )
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError) as error:
        file.check()
        with system_errors_named(path):
            raise VideoReadError(f"{path} is not a video: {_describe_content(path)}.") from error
    except av.error.FFmpegError as error:
        bounds.check_time()
        raise_machine_fault(path, error)
        raise VideoReadError(f"{path} cannot be opened: {error.strerror}.") from error


def _check_frame_size(path: Path, stream: VideoStream, bounds: ReadingBounds) -> None:
    """Look at the size that the header claims; the decoder hides one that it refuses."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height == 0:
        with _opened(path, bounds, {"codec_whitelist": "none"}) as undecoded:
            same = next(other for other in undecoded.streams.video if other.index == stream.index)
            width, height = same.codec_context.width, same.codec_context.height
    bounds.check_frame(width, height)
    bounds.check_frame(*shown_size(width, height, pixel_aspect(stream)))


def _moving_picture(path: Path, container: InputContainer, bounds: ReadingBounds) -> VideoStream:
    """Find the film: no cover, no thumbnail, and of a codec that can be decoded."""
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    decodable = [stream for stream in pictures if stream.codec_context is not None]
    if decodable:
        return decodable[0] if len(decodable) == 1 else _film(path, container, decodable, bounds)
    if pictures:
        with system_errors_named(path):
            tag = _codec_tag(path)
        raise VideoReadError(
            f"{path} holds a video that this FFmpeg cannot decode (codec tag {tag!r}). It may be encrypted. Convert it to H.264."
        )
    if container.streams.video:
        raise VideoReadError(f"{path} holds sound and a cover picture but no video.")
    if container.streams.audio:
        raise VideoReadError(f"{path} holds only sound; expected a video.")
    raise VideoReadError(f"{path} holds no video.")


def _film(path: Path, container: InputContainer, streams: Sequence[VideoStream], bounds: ReadingBounds) -> VideoStream:
    """Choose among several videos: one that moves, and of those the one that FFmpeg's players choose, or else the first."""
    counts = {stream.index: stream.frames for stream in streams}
    if not all(counts.values()):
        counts = _count_packets(path, bounds)
    moving = [stream for stream in streams if counts.get(stream.index, 0) > 1] or list(streams)
    best = container.streams.best("video")
    return next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])


def _count_packets(path: Path, bounds: ReadingBounds) -> Counter[int]:
    """Count the packets of each video at the beginning of a file."""
    counts: Counter[int] = Counter()
    with _opened(path, bounds, {"codec_whitelist": "none"}) as container:
        try:
            for packet in islice(container.demux(container.streams.video), _COUNTED_PACKETS):
                bounds.check_time()
                counts[packet.stream_index] += bool(packet.size)
        except av.error.FFmpegError:
            bounds.check_time()
    return counts
