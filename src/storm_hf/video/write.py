"""Frames into an H.264 file that every player shows, the same bytes every time."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from storm_hf.errors import VideoWriteError
from storm_hf.writing import written_whole


# One thread, since x264 cuts frames into slices by the number of threads. Quality 12 is hard to tell from the original.
_ENCODER_OPTIONS = {"crf": "12", "preset": "veryfast", "threads": "1"}
_MAX_FPS_DENOMINATOR = 1001  # 30000 / 1001 is the rate of NTSC


def write_video(path: str | os.PathLike[str], frames: np.ndarray, *, fps: float) -> Path:
    """Write frames as an mp4 file (H.264, 4:2:0), complete or not at all.

    Args:
        path (`str` or `os.PathLike`):
            Where the file goes. Folders on the way are made; an existing file is replaced once the new one is whole.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            RGB pixels, `uint8`, of even height and width.
        fps (`float`):
            Frames shown per second.

    Returns:
        `Path`: The file written.

    Raises:
        VideoWriteError: If there are no frames, or they have another shape, type or an odd size, or fps is not
            positive.
    """
    _check(frames, fps)
    path = Path(path)
    with written_whole(path) as unfinished:
        _encode(unfinished, frames, Fraction(fps).limit_denominator(_MAX_FPS_DENOMINATOR))
    return path


def _check(frames: np.ndarray, fps: float) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise VideoWriteError(
            "Expected uint8 frames of shape (num_frames, height, width, 3) with at least one frame but got "
            f"{frames.dtype} of shape {frames.shape}."
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise VideoWriteError(
            f"Expected an even height and width, as 4:2:0 video needs, but got {height} x {width}. Pad or crop by one."
        )
    if not 1 / _MAX_FPS_DENOMINATOR <= fps < float("inf"):
        raise VideoWriteError(f"Expected fps above 0 but got {fps}.")


def _encode(path: Path, frames: np.ndarray, rate: Fraction) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
