"""Read frames with torchcodec or decord, where a caller prefers them and they work.

PyAV looks at the file first, so that mistakes are told in the same words, frames are chosen by the same clock, and a
library that counts or seeks wrongly is found out. decord can hang on damaged files (dmlc/decord issue 373).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from storm_hf.errors import VideoReadError
from storm_hf.optional import require
from storm_hf.video.pyav_backend import read_with_pyav
from storm_hf.video.record import VideoClip
from storm_hf.video.sample import FrameSelection
from storm_hf.video.timeline import Timeline, timeline_of_packets, timeline_of_pictures


# From frame positions to pixels of shape (num_frames, height, width, 3).
FetchFrames = Callable[[list[int]], np.ndarray]

_SAME_PICTURE = 8.0  # mean difference, of 255, that two conversions of one picture from YUV to RGB stay below


def read_with_torchcodec(path: Path, selection: FrameSelection, strict: bool) -> VideoClip:
    """Read the selected frames with torchcodec, whose exact mode scans the whole file; see `read_video`."""
    return _read(path, selection, "torchcodec", _open_torchcodec)


def read_with_decord(path: Path, selection: FrameSelection, strict: bool) -> VideoClip:
    """Read the selected frames with decord; see `read_video`."""
    return _read(path, selection, "decord", _open_decord)


def _open_torchcodec(path: Path) -> tuple[int, FetchFrames]:
    video_decoder = require("torchcodec.decoders").VideoDecoder
    decoder = video_decoder(str(path), dimension_order="NHWC", seek_mode="exact")
    return len(decoder), lambda indices: decoder.get_frames_at(indices).data.numpy()


def _open_decord(path: Path) -> tuple[int, FetchFrames]:
    reader = require("decord").VideoReader(str(path), num_threads=1)
    return len(reader), lambda indices: reader.get_batch(indices).asnumpy()


def _read(
    path: Path, selection: FrameSelection, backend: str, open_with: Callable[[Path], tuple[int, FetchFrames]]
) -> VideoClip:
    first = read_with_pyav(path, FrameSelection(indices=[0]), strict=False)
    library_errors = _errors_of(backend)
    try:
        num_video_frames, fetch = open_with(path)
        timeline = _agreed_timeline(path, num_video_frames, backend)
        _check_same_picture(path, fetch([0]), first.frames, backend)
        chosen = selection.choose(timeline.seconds)
        frames = fetch(chosen.tolist())
    except library_errors as error:
        reason = str(error).strip().partition("\n")[0]
        raise VideoReadError(f'{path} cannot be read by {backend} ({reason}). Use backend="pyav".') from error
    return VideoClip(
        frames=frames,
        timestamps=timeline.seconds[chosen],
        num_asked=len(chosen),
        num_decoded=len(chosen),
        num_broken=0,
        rotation=first.rotation,
        backend=backend,
    )


def _errors_of(backend: str) -> tuple[type[Exception], ...]:
    """List what the library raises about a file: decord has a class of its own, not derived from RuntimeError."""
    if backend == "decord":
        return (RuntimeError, IndexError, require("decord").DECORDError)
    require("torchcodec.decoders")
    return (RuntimeError, IndexError)


def _check_same_picture(path: Path, picture: np.ndarray, expected: np.ndarray, backend: str) -> None:
    """Make sure that the library starts with the first frame: after a seek it may silently give another one."""
    if picture.shape != expected.shape or np.abs(picture.astype(int) - expected).mean() > _SAME_PICTURE:
        raise VideoReadError(f'{path} begins with another picture in {backend} than in a player. Use backend="pyav".')


def _agreed_timeline(path: Path, num_video_frames: int, backend: str) -> Timeline:
    """Find the clock by which the library's frame i is the i-th frame shown."""
    for read_timeline in (timeline_of_packets, timeline_of_pictures):
        timeline = read_timeline(path)
        if timeline is not None and len(timeline.keys) == num_video_frames:
            return timeline
    raise VideoReadError(
        f'{path} has frames that {backend} counts otherwise than a player shows them. Use backend="pyav".'
    )
