"""Open a file and find its moving picture, or say in one sentence why there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from storm_hf.errors import VideoReadError


_SNIFFED_BYTES = 1024


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream that is no cover picture.

    Yields:
        `tuple[InputContainer, VideoStream]`: The container and the stream, closed afterwards.

    Raises:
        VideoReadError: If the file is missing, a folder, empty, no video, or only sound.
    """
    check_file(path)
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except av.error.InvalidDataError as error:
        raise VideoReadError(f"{path} is not a video: {_what_it_looks_like(path)}.") from error
    except av.error.FFmpegError as error:
        raise VideoReadError(f"{path} cannot be opened: {error.strerror}.") from error
    with container:
        yield container, _moving_picture(path, container)


def check_file(path: Path) -> None:
    """Make sure that there is a file with something in it.

    Raises:
        VideoReadError: If the file is missing, a folder or empty.
    """
    if not path.exists():
        raise VideoReadError(f"{path} does not exist.")
    if path.is_dir():
        raise VideoReadError(f"{path} is a folder; expected a video file.")
    if path.is_file() and path.stat().st_size == 0:
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
