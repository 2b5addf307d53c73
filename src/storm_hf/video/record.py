"""The frames of a video, with when each is shown and how well they were read.

Axes: T frames, H height, W width.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class VideoClip:
    """The frames that were asked of a video, upright and in the order they are shown.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            RGB pixels, `uint8`, 0 to 255, turned as a player would show them.
        timestamps (`np.ndarray` of shape `(num_frames,)`):
            Seconds at which each frame is shown, counted from the first frame of the video, `float64`.
        num_asked (`int`):
            Frames that were asked for. Equal to the number of frames returned.
        num_decoded (`int`):
            Number of frames with their own picture. The others repeat their nearest good neighbour.
        num_broken (`int`):
            Packets and pictures met on the way that the decoder reported as damaged.
        rotation (`int`):
            Degrees, counter-clockwise, by which the stored pictures were turned: 0, 90, 180 or 270.
        backend (`str`):
            The decoder that read the pixels: `pyav`, `torchcodec` or `decord`.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    num_asked: int
    num_decoded: int
    num_broken: int
    rotation: int
    backend: str

    @property
    def duration(self) -> float:
        """Seconds from the earliest to the latest of these frames."""
        return float(np.ptp(self.timestamps))

    @property
    def fps(self) -> float | None:
        """Mean rate of these frames in frames per second, or None where they all show one moment."""
        return (len(self.timestamps) - 1) / self.duration if self.duration > 0 else None
