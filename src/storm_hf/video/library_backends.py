"""Decoders beside PyAV, torchcodec and decord, and the one setting that chooses between them.

PyAV looks at the file first, so that mistakes raise the same messages, frames are chosen by the same clock, limits
are kept, and a library that counts or seeks wrongly is found out. The library decodes in a process of its own.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.video.clip_file import VideoClip
from storm_hf.video.library_process import borrowed_process
from storm_hf.video.limits import ReadingBounds, reading_defaults
from storm_hf.video.pyav_backend import read_with_pyav
from storm_hf.video.sample import FrameSelection
from storm_hf.video.timeline import Timeline, timeline_of_packets, timeline_of_pictures


_SAME_PICTURE = 8.0  # mean difference, of 255, that two conversions of one picture from YUV to RGB stay below
_COMPARED_SIDE = 256  # rows and columns to compare at least: all of a small picture, a grid of a large one


def read_with_torchcodec(bounds: ReadingBounds, selection: FrameSelection, strict: bool) -> VideoClip:
    """Read the selected frames with torchcodec, whose exact mode scans the whole file; see `read_video`."""
    return _read(bounds, selection, "torchcodec")


def read_with_decord(bounds: ReadingBounds, selection: FrameSelection, strict: bool) -> VideoClip:
    """Read the selected frames with decord; see `read_video`."""
    return _read(bounds, selection, "decord")


def _read(bounds: ReadingBounds, selection: FrameSelection, library: str) -> VideoClip:
    first = read_with_pyav(bounds, FrameSelection(indices=[0]), strict=False)
    with borrowed_process(library, bounds) as process:
        timeline = _agreed_timeline(bounds, process.open(bounds), library)
        size = None if timeline.aspect == 1 else first.frames.shape[1:3]
        picture = _stretched(process.fetch([0], bounds), size)
        _check_same_picture(bounds, picture, first.frames, library)
        chosen = timeline.choose(selection, bounds)
        frames = _stretched(process.fetch(chosen.tolist(), bounds), size)
    return VideoClip(
        frames=frames,
        timestamps=timeline.seconds[chosen],
        num_asked=len(chosen),
        num_decoded=len(chosen),
        num_broken=0,
        rotation=first.rotation,
        backend=library,
    )


def _stretched(frames: np.ndarray, size: tuple[int, ...] | None) -> np.ndarray:
    """Scale frames to the height and width that a player shows, where their pixels are not square."""
    if size is None or frames.shape[1:3] == size:
        return frames
    scaled = VideoReformatter()
    pictures = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    return np.stack([scaled.reformat(picture, width=size[1], height=size[0]).to_ndarray() for picture in pictures])


def _check_same_picture(bounds: ReadingBounds, picture: np.ndarray, expected: np.ndarray, library: str) -> None:
    """Make sure that the library starts with the first frame: after a seek it may silently give another one."""
    step = max(1, min(picture.shape[1:3]) // _COMPARED_SIDE)
    grid = np.s_[:, ::step, ::step]
    if picture.shape != expected.shape or np.abs(picture[grid].astype(int) - expected[grid]).mean() > _SAME_PICTURE:
        raise VideoReadError(
            f'{bounds.path} begins with another picture in {library} than in a player. Use backend="pyav".'
        )


def _agreed_timeline(bounds: ReadingBounds, num_video_frames: int, library: str) -> Timeline:
    """Find the clock by which the library's frame i is the i-th frame shown."""
    for read_timeline in (timeline_of_packets, timeline_of_pictures):
        timeline = read_timeline(bounds)
        if timeline is not None and len(timeline.keys) == num_video_frames:
            return timeline
    raise VideoReadError(
        f'{bounds.path} has frames that {library} counts otherwise than a player shows them. Use backend="pyav".'
    )


VideoBackend = Literal["auto", "pyav", "decord", "torchcodec"]
BACKENDS = get_args(VideoBackend)
_WITHOUT_LIBRARY = ("auto", "pyav")
# `auto` is PyAV and not the fastest library that is there: the same call must give the same pixels on every machine, and
# PyAV is always there and reads damaged files. What torchcodec gains in decoding is lost again, since PyAV must look at
# the file first.
_BACKEND_OF_AUTO = "pyav"
_VARIABLE = "STORM_VIDEO_BACKEND"


def set_video_backend(backend: str) -> None:
    """Choose what decodes clips in this process, and in those that it starts from now on, such as workers of a data loader.

    Args:
        backend (`str`):
            `auto`, `pyav`, `decord` or `torchcodec`. `auto` takes the choice back.

    Raises:
        ConfigurationError: If there is no such backend.
        DependencyError: If it is not installed, or if it is installed but does not load.
    """
    check_video_backend(backend)
    if backend == "auto":
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = backend


def use_video_backend(backend: str | None) -> None:
    """Set the backend that a command or a trainer was given, or check the one that the environment names.

    Args:
        backend (`str`, *optional*):
            As in `set_video_backend`. None leaves the choice to the environment.

    Raises:
        ConfigurationError: If there is no such backend.
        DependencyError: If it is not installed, or if it is installed but does not load.
    """
    if backend is None:
        check_video_backend(video_backend())
    else:
        set_video_backend(backend)


def check_video_backend(backend: str) -> None:
    """Check that a backend exists and loads here, so that hours of work do not end at the first clip.

    A library is loaded in a process of its own, which stays for the first clip.

    Args:
        backend (`str`):
            `auto`, `pyav`, `decord` or `torchcodec`.

    Raises:
        ConfigurationError: If there is no such backend.
        DependencyError: If it is not installed, or if it is installed but does not load.
    """
    check_backend_name(backend)
    if backend not in _WITHOUT_LIBRARY:
        with borrowed_process(backend, ReadingBounds(Path())):
            pass


def check_backend_name(backend: str) -> None:
    """Raise [`ConfigurationError`] if there is no backend of this name."""
    if backend not in BACKENDS:
        raise ConfigurationError(f"Expected a video_backend among {', '.join(BACKENDS)} but got {backend!r}.")


def video_backend(environment: Mapping[str, str] = os.environ) -> str:
    """Return the backend that `auto` means here: of `bounded_reading`, else of `set_video_backend`, else PyAV.

    Raises:
        ConfigurationError: If the environment variable `STORM_VIDEO_BACKEND` names no backend.
    """
    chosen = reading_defaults().backend
    if chosen == "auto":
        chosen = environment.get(_VARIABLE) or "auto"
    if chosen not in BACKENDS:
        raise ConfigurationError(f"Expected {_VARIABLE} to be one of {', '.join(BACKENDS)} but it is {chosen!r}.")
    return _BACKEND_OF_AUTO if chosen == "auto" else chosen


def other_backend(backend: str = "auto") -> dict[str, str]:
    """Name the backend of a setting for a record of what frames depend on.

    Args:
        backend (`str`, *optional*, defaults to `"auto"`):
            The setting; `auto` is looked up.

    Returns:
        `dict[str, str]`: `video_backend` and its name. Empty for PyAV, which records of earlier versions do not name: other
            backends may round colours in another way.
    """
    name = video_backend() if backend == "auto" else backend
    return {} if name == _BACKEND_OF_AUTO else {"video_backend": name}


def chosen_backend(backend: str, path: str | os.PathLike[str]) -> str:
    """Return the backend that reads a clip.

    Raises:
        VideoReadError: If there is no such backend.
    """
    if backend not in BACKENDS:
        raise VideoReadError(f"{path} was asked of the backend {backend!r}; expected one of {', '.join(BACKENDS)}.")
    return video_backend() if backend == "auto" else backend
