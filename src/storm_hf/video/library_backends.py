"""Read frames with torchcodec or decord, where a caller prefers them and they work.

PyAV looks at the file first, so that mistakes raise the same messages, frames are chosen by the same clock, limits
are kept, and a library that counts or seeks wrongly is found out. The library decodes in a process of its own.
"""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from storm_hf.errors import VideoReadError
from storm_hf.video.library_pool import borrowed_process
from storm_hf.video.limits import ReadingBounds
from storm_hf.video.pyav_backend import read_with_pyav
from storm_hf.video.record import VideoClip
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
