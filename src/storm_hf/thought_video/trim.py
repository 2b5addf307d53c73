"""Clip of a question, cut to the part that the question may see.

Axes: T frames, H height, W width.
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import VideoReadError
from storm_hf.thought_video.clip_part import frame_times, is_before, read_frames
from storm_hf.thought_video.record import ThoughtVideo
from storm_hf.video.write import write_timed_video


_FRAMES_AT_ONCE = 64  # held in memory, however long the clip is
# Names that every file system takes. Some take `Clip` and `clip` for one file, and Windows has devices of these names.
_SAFE_NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[a-z0-9_](?:[a-z0-9_.-]{0,98}[a-z0-9_-])?")
_LEGIBLE_NAME = re.compile(r"\w[\w-]{0,79}", re.ASCII)


def question_clip(annotation: Annotation, thought: ThoughtVideo, folder: Path) -> Path:
    """Cut the clip to what a question with this thought video may be asked about.

    It begins where the part of the question begins, and ends where that part ends or its thought video begins, whatever comes
    first. A clip is cut by encoding these frames again, since a cut without encoding keeps pictures
    from outside of it.

    Args:
        annotation ([`Annotation`]):
            The question.
        thought ([`ThoughtVideo`]):
            Says until when the clip may be seen.
        folder (`Path`):
            Folder of a cut clip, under a name made of its source and its interval. An existing one is kept.

    Returns:
        `Path`: The clip itself where all of it may be seen, else the cut one.

    Raises:
        VideoReadError: If the clip cannot be read, or nothing of it may be seen.
    """
    until = min(_or_infinite(annotation.end_seconds), _or_infinite(thought.seen_until_seconds))
    start = annotation.start_seconds or 0.0
    if start <= 0.0 and until == np.inf:
        return annotation.video
    times = frame_times(annotation.video)
    seen = np.flatnonzero(is_before(times, until) & ~is_before(times, start))
    if len(seen) == len(times):
        return annotation.video
    if len(seen) == 0:
        raise VideoReadError(f"{annotation.video} shows no frame {_words_of_part(start, until)}.")
    path = Path(folder) / f"{file_stem(annotation.id)}{_name_of_part(start, until)}.mp4"
    if not path.exists():
        write_timed_video(path, _frames(annotation.video, seen, until), times[seen] - times[seen[0]])
    return path


def file_stem(name: str) -> str:
    """Return a file name for an id: the id itself where every file system takes it and keeps it distinct, else with a hash.

    `Clip` and `clip` are one file on macOS and Windows, so that an id with capital letters gets a hash of it.
    """
    if _SAFE_NAME.fullmatch(name):
        return name
    digest = sha256(name.encode()).hexdigest()[:20]
    return f"{name}-{digest}" if _LEGIBLE_NAME.fullmatch(name) else digest


def _or_infinite(seconds: float | None) -> float:
    return np.inf if seconds is None else seconds


def _name_of_part(start: float, until: float) -> str:
    beginning = f"-from-{start:.3f}s" if start > 0 else ""
    return beginning + (f"-until-{until:.3f}s" if until < np.inf else "")


def _words_of_part(start: float, until: float) -> str:
    if start <= 0:
        return f"before {until:.3f} s"
    return f"from {start:.3f} s on" + (f" and before {until:.3f} s" if until < np.inf else "")


def _frames(path: Path, positions: np.ndarray, until: float) -> Iterator[np.ndarray]:
    for first in range(0, len(positions), _FRAMES_AT_ONCE):
        yield from read_frames(path, positions[first : first + _FRAMES_AT_ONCE], before=until)
