"""Part of a clip that a question may see: the frames shown before the moment of the question.

Axes: T frames of the clip, N frames taken, H height, W width.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from storm_hf.annotations.record import Annotation
from storm_hf.errors import DatasetError, VideoReadError
from storm_hf.video import read_video
from storm_hf.video.limits import ReadingBounds
from storm_hf.video.sample import evenly_spaced, frames_shown_at
from storm_hf.video.timeline import timeline_of_packets, timeline_of_pictures


# Containers round times to their time base; a frame this little before a moment counts as shown at it.
SAME_MOMENT_SECONDS = 1e-3


def frame_times(path: Path) -> np.ndarray:
    """Seconds at which each frame of a clip is shown, counted from the first one, without reading a picture where possible.

    Returns:
        `np.ndarray` of shape `(num_video_frames,)`: Ascending, at least one.

    Raises:
        VideoReadError: If the clip cannot be read or has no frame.
    """
    bounds = ReadingBounds(path)
    timeline = timeline_of_packets(bounds) or timeline_of_pictures(bounds)
    if len(timeline.seconds) == 0:
        raise VideoReadError(f"{path} holds no frame that can be decoded.")
    return timeline.seconds


def end_of(times: np.ndarray) -> float:
    """Second at which the last frame leaves the screen."""
    last_display = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return float(times[-1]) + last_display


def is_before(times: np.ndarray, moment: float) -> np.ndarray:
    """Select the frames shown before a moment, excluding the one that appears at it."""
    return times < moment - SAME_MOMENT_SECONDS


def seen_until(annotation: Annotation) -> float:
    """The moment, in seconds, from which on a question may see nothing; infinite where its clip is seen to the end."""
    ends = (annotation.time_seconds, annotation.end_seconds)
    return min((moment for moment in ends if moment is not None), default=math.inf)


def seen_frames(annotation: Annotation, times: np.ndarray, until: float = math.inf) -> np.ndarray:
    """Positions of the frames that a question is about and may see: from its start until the moment it is asked at.

    Args:
        annotation ([`Annotation`]):
            Question. Without a time, the end of its part counts, and else the end of the clip.
        times (`np.ndarray` of shape `(num_video_frames,)`):
            Result of `frame_times` for its clip.
        until (`float`, *optional*):
            Another moment, in seconds, from which on nothing may be seen.

    Returns:
        `np.ndarray` of shape `(num_seen,)`: Ascending; empty where the question is asked before anything is seen.
    """
    start = annotation.start_seconds or 0.0
    return np.flatnonzero(is_before(times, min(until, seen_until(annotation))) & ~is_before(times, start))


def read_frames(path: Path, positions: np.ndarray, before: float = math.inf) -> np.ndarray:
    """Read frames and make sure that none of them is shown at or after a moment. Damage is an error, never a neighbour's picture.

    Args:
        path (`Path`):
            The clip.
        positions (`np.ndarray` of shape `(num_frames,)`):
            Counted from 0 in the order in which the frames are shown.
        before (`float`, *optional*):
            The moment in seconds.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: RGB, `uint8`.

    Raises:
        VideoReadError: If the clip is damaged, or its packets promise other times than its frames have.
    """
    try:
        clip = read_video(path, indices=positions.tolist())
    except DatasetError as error:
        raise VideoReadError(f"{path} has fewer frames than its packets say, so it cannot be cut safely.") from error
    if not is_before(clip.timestamps, before).all():
        raise VideoReadError(
            f"{path} shows its frames at other times than its packets say, so it cannot be cut safely."
        )
    return clip.frames


def read_seen(annotation: Annotation, num_frames: int) -> np.ndarray:
    """Read frames spread evenly over what a question may see, from the first to the last one.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: RGB, `uint8`. A single frame is the middle one.

    Raises:
        VideoReadError: If the clip cannot be read, or nothing of it is seen before the question.
    """
    times = frame_times(annotation.video)
    seen = _something(annotation, seen_frames(annotation, times))
    moments = evenly_spaced(times[seen], num_frames)
    return read_frames(annotation.video, seen[frames_shown_at(times[seen], moments)], before=seen_until(annotation))


def read_last_seen(annotation: Annotation, num_frames: int, fps: float) -> np.ndarray:
    """Read the last frames that a question may see, `fps` of them per second, in the order they are shown.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: RGB, `uint8`. The last frame seen is the last one here.

    Raises:
        VideoReadError: If the clip cannot be read, or less of it is seen than these frames last.
    """
    times = frame_times(annotation.video)
    seen = _something(annotation, seen_frames(annotation, times))
    moments = times[seen[-1]] - np.arange(num_frames)[::-1] / fps
    if moments[0] < times[seen[0]] - SAME_MOMENT_SECONDS:
        raise VideoReadError(
            f"{annotation.video} shows {times[seen[-1]] - times[seen[0]]:.2f} s before the question {annotation.id!r}; "
            f"{num_frames} frames at {fps:g} per second need {(num_frames - 1) / fps:.2f} s."
        )
    return read_frames(annotation.video, seen[frames_shown_at(times[seen], moments)], before=seen_until(annotation))


def cropped_to(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a frame to a size, and crop in the middle what is too wide or too high for it.

    Args:
        frame (`np.ndarray` of shape `(any_height, any_width, 3)`):
            RGB, `uint8`.
        height (`int`):
            In pixels.
        width (`int`):
            In pixels.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: RGB, `uint8`.
    """
    return np.asarray(ImageOps.fit(Image.fromarray(frame), (width, height), Image.Resampling.LANCZOS))


def _something(annotation: Annotation, seen: np.ndarray) -> np.ndarray:
    if len(seen) == 0:
        raise VideoReadError(f"{annotation.video} shows no frame before the question {annotation.id!r} is asked.")
    return seen
