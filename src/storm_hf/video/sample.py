"""Frame selection: evenly in presentation time, never in the order of packets.

Moments fall on the frame that a player would be showing then, so a clip of variable frame rate is sampled as truly as
any other. Frames are repeated where more are asked than the video has.

Axes: T frames of the video, M frames asked.
"""

import math
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from storm_hf.errors import ConfigurationError, DatasetError, VideoReadError


# Containers round times to their time base; a moment this close before a frame counts as that frame.
_TOLERANCE_SECONDS = 1e-3


@dataclass(frozen=True)
class FrameSelection:
    """Selection of frames of a video: a number of frames, a rate, certain frames, or (by default) every frame.

    Args:
        num_frames (`int`, *optional*):
            Frames to spread evenly over the time from the first to the last frame.
        fps (`float`, *optional*):
            Frames to take per second of video.
        indices (`Sequence[int]`, *optional*):
            Frames to take, counted from 0 in the order in which they are shown.
    """

    num_frames: int | None = None
    fps: float | None = None
    indices: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        given = [name for name in ("num_frames", "fps", "indices") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigurationError(f"Expected one way of choosing frames but got {' and '.join(given)}. Pass one.")
        if self.num_frames is not None and self.num_frames < 1:
            raise ConfigurationError(f"Expected num_frames of at least 1 but got {self.num_frames}.")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ConfigurationError(f"Expected fps above 0 but got {self.fps}.")
        if self.indices is not None and len(self.indices) == 0:
            raise ConfigurationError("Expected at least one index but got none. Leave `indices` out for all frames.")

    def count(self, times: np.ndarray) -> int:
        """Count the frames that `choose` would return, in constant memory."""
        if self.num_frames is not None:
            return self.num_frames
        if self.fps is not None:
            return _count_at_rate(times, self.fps)
        return len(times if self.indices is None else self.indices)

    def choose(self, times: np.ndarray) -> np.ndarray:
        """Find the frames asked for among frames shown at `times`.

        Args:
            times (`np.ndarray` of shape `(num_video_frames,)`):
                Seconds at which each frame of the video is shown, ascending.

        Returns:
            `np.ndarray` of shape `(num_asked,)`: Positions in `times`, ascending unless indices were given.
        """
        if self.num_frames is not None:
            return frames_shown_at(times, evenly_spaced(times, self.num_frames))
        if self.fps is not None:
            return frames_shown_at(times, _moments_at_rate(times, self.fps))
        if self.indices is not None:
            return _checked_indices(self.indices, len(times))
        return np.arange(len(times))


def evenly_spaced(times: np.ndarray, num_frames: int) -> np.ndarray:
    """Spread moments over a video, both ends included; a single one falls in the middle."""
    if num_frames == 1:
        return np.array([(times[0] + times[-1]) / 2])
    return np.linspace(times[0], times[-1], num_frames)


def _count_at_rate(times: np.ndarray, fps: float) -> int:
    """Count the ticks, `fps` a second, for as long as the video shows a picture, its last frame's display included."""
    last_display = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    seconds = float(times[-1] - times[0]) + last_display
    return math.ceil(min(max(1.0, (seconds - _TOLERANCE_SECONDS) * fps), sys.maxsize))


def _moments_at_rate(times: np.ndarray, fps: float) -> np.ndarray:
    """Tick `fps` times a second; see `_count_at_rate`."""
    return times[0] + np.arange(_count_at_rate(times, fps)) / fps


def frames_shown_at(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Find the frame on screen at each moment: the last one shown at or before it."""
    return np.maximum(np.searchsorted(times, moments + _TOLERANCE_SECONDS, side="right") - 1, 0)


def _checked_indices(indices: Sequence[int], num_video_frames: int) -> np.ndarray:
    """Return the indices as an array, after making sure that the video has them.

    Raises:
        DatasetError: If an index lies outside the video.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.min() < 0 or chosen.max() >= num_video_frames:
        raise DatasetError(
            f"Expected indices from 0 to {num_video_frames - 1}, since the video has {num_video_frames} frames, "
            f"but got {chosen.min()} to {chosen.max()}."
        )
    return chosen


_FIRST_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")
_HOLDERS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"))
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # bytes from the beginning of the content to the number of samples
_MAX_BOXES = 1_000_000


def check_sample_tables(path: Path) -> None:
    """Make sure that a file claims no more samples than it has bytes: a header of two kilobytes can claim two billion.

    Raises:
        VideoReadError: If it does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(8)
        if beginning[4:8] not in _FIRST_BOXES:
            return
        for count in _sample_counts(file, size):
            if count > size:
                raise VideoReadError(
                    f"{path} is damaged: its header claims {count:,} samples, and the file has {size:,} bytes."
                )


def _sample_counts(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield the number of samples that each table claims; boxes that hold others are entered."""
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return
        length, kind = struct.unpack_from(">I4s", header)
        num_bytes = 8
        if length == 1 and len(header) == 16:
            length, num_bytes = struct.unpack_from(">Q", header, 8)[0], 16
        if kind in _COUNT_AT:
            file.seek(position + num_bytes + _COUNT_AT[kind])
            if len(claimed := file.read(4)) == 4:
                yield struct.unpack(">I", claimed)[0]
        if kind in _HOLDERS:
            position += num_bytes
        elif length >= num_bytes and position + length < size:
            position += length
        else:
            return
