"""H.264 encoder of this package: the same frames give the same bytes, in every process and on every machine.

Axes: H height, W width.
"""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from storm_hf.atomic import written_atomically
from storm_hf.errors import VideoWriteError


# One thread, since x264 cuts frames into slices by the number of threads. `cpu-independent`, since some of its assembly (such
# as macroblock trees with AVX-512) rounds otherwise on natural pictures, from run to run. Quality 12 is hard to tell from
# the original.
_ENCODER_OPTIONS = {"crf": "12", "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
_MAX_FPS_DENOMINATOR = 1001  # 30000 / 1001 is the rate of NTSC
_TIME_BASE = Fraction(1, 90_000)  # fine enough for every frame rate in use


def write_video(path: str | os.PathLike[str], frames: np.ndarray, *, fps: float) -> Path:
    """Write frames as an mp4 file (H.264, 4:2:0), complete or not at all.

    Args:
        path (`str` or `os.PathLike`):
            Output path. Missing folders are made; an existing file is replaced once the new one is complete.
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
    with written_atomically(path) as unfinished:
        _encode(unfinished, frames, Fraction(fps).limit_denominator(_MAX_FPS_DENOMINATOR))
    return path


def write_timed_video(path: Path, frames: Iterable[np.ndarray], times: np.ndarray) -> Path:
    """Write frames that come one by one as an mp4 file, each at its own time; complete or not at all.

    Args:
        path (`Path`):
            The file.
        frames (`Iterable[np.ndarray]`):
            RGB pixels of shape `(height, width, 3)`, `uint8`. One of odd size loses its last row or column, as 4:2:0 needs.
        times (`np.ndarray` of shape `(num_frames,)`):
            Seconds at which each is shown, ascending, the first one at 0.

    Returns:
        `Path`: The file written.
    """
    rate = Fraction((len(times) - 1) / times[-1] if len(times) > 1 else 1.0).limit_denominator(_MAX_FPS_DENOMINATOR)
    with written_atomically(path) as unfinished:
        _encode(unfinished, (_even(frame) for frame in frames), rate, times)
    return path


def _even(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])


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


def _encode(path: Path, frames: Iterable[np.ndarray], rate: Fraction, times: np.ndarray | None = None) -> None:
    """Write frames at a rate, or at `times` in seconds where there are some."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS)
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = _TIME_BASE
        for position, frame in enumerate(frames):
            if position == 0:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")  # (H, W, 3)
            if times is not None:
                picture.pts, picture.time_base = round(float(times[position]) / float(_TIME_BASE)), _TIME_BASE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
