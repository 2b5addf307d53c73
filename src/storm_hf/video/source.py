"""Open a file and find its moving picture, or say in one sentence why there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from storm_hf.errors import VideoReadError
from storm_hf.video.limits import ReadingBounds


_SNIFFED_BYTES = 1024


@contextmanager
def open_video(path: Path, bounds: ReadingBounds | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream that is no cover picture.

    Args:
        path (`Path`):
            The file.
        bounds ([`ReadingBounds`], *optional*):
            What the reading may take. None for the default limits and no time-out.

    Yields:
        `tuple[InputContainer, VideoStream]`: The container and the stream, closed afterwards. Its decoder refuses
        pictures that are too large before it allocates them.

    Raises:
        VideoReadError: If the file is missing, a folder, no file, empty, no video, only sound, or too large.
    """
    check_file(path)
    bounds = bounds or ReadingBounds(path)
    decoder_options = {"max_pixels": str(bounds.limits.max_frame_pixels)}
    with _open(path, bounds, decoder_options) as container:
        stream = _moving_picture(path, container)
        _check_frame_size(path, stream, bounds)
        stream.codec_context.options = decoder_options
        yield container, stream


def _open(path: Path, bounds: ReadingBounds, options: dict[str, str]) -> InputContainer:
    """Open a file; FFmpeg decodes some of it already now, so that the options matter."""
    bounds.check_time()
    try:
        return av.open(str(path), metadata_errors="ignore", options=options, timeout=bounds.remaining_seconds)
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise VideoReadError(f"{path} is not a video: {_what_it_looks_like(path)}.") from error
    except av.error.FFmpegError as error:
        bounds.check_time()
        raise VideoReadError(f"{path} cannot be opened: {error.strerror}.") from error


def _check_frame_size(path: Path, stream: VideoStream, bounds: ReadingBounds) -> None:
    """Look at the size that the header claims; the decoder hides one that it refuses."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height == 0:
        with _open(path, bounds, {"codec_whitelist": "none"}) as undecoded:
            codec_context = _moving_picture(path, undecoded).codec_context
            width, height = codec_context.width, codec_context.height
    bounds.check_frame(width, height)


def check_file(path: Path) -> None:
    """Make sure that there is a file with something in it.

    Raises:
        VideoReadError: If the file is missing, a folder, no file but a pipe or a device, or empty.
    """
    if not path.exists():
        raise VideoReadError(f"{path} does not exist.")
    if path.is_dir():
        raise VideoReadError(f"{path} is a folder; expected a video file.")
    if not path.is_file():
        raise VideoReadError(f"{path} is a pipe or a device, which cannot be read twice. Copy it into a file.")
    if path.stat().st_size == 0:
        raise VideoReadError(f"{path} is empty; the copy or download that made it may have failed.")


def _moving_picture(path: Path, container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    if container.streams.video:
        raise VideoReadError(f"{path} holds sound and a cover picture but no video.")
    if container.streams.audio:
        raise VideoReadError(f"{path} holds only sound; expected a video.")
    raise VideoReadError(f"{path} holds no video.")


def _what_it_looks_like(path: Path) -> str:
    """Guess from the first bytes what was saved under the name of a video."""
    with path.open("rb") as file:
        beginning = file.read(_SNIFFED_BYTES).lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html")) or b"<html" in beginning:
        return "it is an HTML page, as a failed download leaves behind"
    if beginning.isascii() and b"\0" not in beginning:
        return "it is text"
    return "it is damaged, cut off before its index, or of an unknown kind"
