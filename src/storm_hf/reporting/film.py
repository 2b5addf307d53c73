"""Films and frames embedded in a page, and a clip beside its thought.

Axes: T frames, H height, W width, in pixels.
"""

import base64
import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.video.source import check_file


_MP4_BRAND = slice(4, 8)  # `ftyp` in every mp4 file
_GAP_GREY = 128


def video_data_uri(video: str | os.PathLike[str] | bytes) -> str:
    """Turn an mp4 file into an address that holds the whole film, for the `src` of a `<video>`.

    Args:
        video (`str`, `os.PathLike` or `bytes`):
            The file, or what is in it.

    Returns:
        `str`: A `data:` address. It is a third longer than the file.

    Raises:
        VideoReadError: If there is no such file, or it is not mp4, which is what browsers play.
    """
    data = video if isinstance(video, bytes) else _read(Path(video))
    if data[_MP4_BRAND] != b"ftyp":
        name = "the film" if isinstance(video, bytes) else os.fspath(video)
        raise VideoReadError(
            f"{name} is not an mp4 file, which a page needs; write it with storm_hf.video.write_video."
        )
    return _data_uri("video/mp4", data)


def frame_data_uri(frame: np.ndarray, scale: int = 1) -> str:
    """Turn a frame into an address that holds it as a PNG, for the `src` of an `<img>`.

    Args:
        frame (`np.ndarray` of shape `(height, width, 3)`):
            RGB pixels, `uint8`.
        scale (`int`, *optional*, defaults to `1`):
            Side in pixels of the square that each pixel becomes.

    Returns:
        `str`: A `data:` address.

    Raises:
        DatasetError: If the frame has another shape or type, or the scale is below 1.
    """
    _check_rgb(frame, ("height", "width"))
    if scale < 1:
        raise DatasetError(f"Expected a scale of 1 or more but got {scale}.")
    file = io.BytesIO()
    Image.fromarray(frame.repeat(scale, axis=0).repeat(scale, axis=1)).save(file, format="png", optimize=True)
    return _data_uri("image/png", file.getvalue())


def side_by_side(
    clip: np.ndarray, thought: np.ndarray, *, gap_px: int = 8, align: Literal["start", "end"] = "start"
) -> np.ndarray:
    """Lay a clip and its thought video into one film, the clip on the left.

    Args:
        clip (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Input clip, `uint8`.
        thought (`np.ndarray` of shape `(num_thought_frames, height, thought_width, 3)`):
            True thought video, `uint8`, of the same height.
        gap_px (`int`, *optional*, defaults to `8`):
            Width of the grey strip between them. An even number keeps an even width even, as `write_video` needs.
        align (`str`, *optional*, defaults to `"start"`):
            Alignment of the two in time: the shorter one holds its last frame (`start`) or its first one (`end`).

    Returns:
        `np.ndarray` of shape `(max(num_frames, num_thought_frames), height, width + gap_px + thought_width, 3)`.

    Raises:
        DatasetError: If either is no film, or they differ in height.
    """
    for film in (clip, thought):
        _check_rgb(film, ("num_frames", "height", "width"))
    if clip.shape[1] != thought.shape[1]:
        raise DatasetError(
            f"Expected films of one height but the clip has {clip.shape[1]} pixels and the thought video "
            f"{thought.shape[1]}. Resize one of them."
        )
    num_frames, height = max(len(clip), len(thought)), clip.shape[1]
    gap = np.full((num_frames, height, gap_px, 3), _GAP_GREY, dtype=np.uint8)
    return np.concatenate([_hold(clip, num_frames, align), gap, _hold(thought, num_frames, align)], axis=2)


def _hold(film: np.ndarray, num_frames: int, align: str) -> np.ndarray:
    missing = num_frames - len(film)
    padding = (0, missing) if align == "start" else (missing, 0)
    return np.pad(film, [padding, (0, 0), (0, 0), (0, 0)], mode="edge")  # (T, H, W, 3)


def _check_rgb(pixels: np.ndarray, axes: tuple[str, ...]) -> None:
    if pixels.ndim != len(axes) + 1 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise DatasetError(
            f"Expected uint8 pixels of shape ({', '.join(axes)}, 3) but got {pixels.dtype} of shape {pixels.shape}."
        )


def _read(path: Path) -> bytes:
    check_file(path)
    return path.read_bytes()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
