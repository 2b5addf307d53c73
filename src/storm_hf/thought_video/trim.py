"""The clip of a question, cut before the moment from which on only the thought video may be seen.

Axes: T frames, H height, W width.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import VideoReadError
from storm_hf.thought_video.clip_part import frame_times, is_before, read_frames
from storm_hf.thought_video.record import ThoughtVideo
from storm_hf.writing import written_whole


_TIME_BASE = Fraction(1, 90_000)  # fine enough for every frame rate in use
_FRAMES_AT_ONCE = 64  # held in memory, however long the clip is
_SAFE_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
# As `write_video`: one thread, so that the bytes are the same on every machine.
_ENCODER_OPTIONS = {"crf": "12", "preset": "veryfast", "threads": "1"}


def question_clip(annotation: Annotation, thought: ThoughtVideo, folder: Path) -> Path:
    """The clip that a question with this thought video may be asked about.

    A clip is cut by encoding what may be seen again, since a cut without encoding keeps pictures from after it.

    Args:
        annotation ([`Annotation`]):
            The question.
        thought ([`ThoughtVideo`]):
            Says until when the clip may be seen.
        folder (`Path`):
            Where a cut clip goes, under a name that says what it was cut from and where. One that is there is kept.

    Returns:
        `Path`: The clip itself where all of it may be seen, else the cut one.

    Raises:
        VideoReadError: If the clip cannot be read, or nothing of it may be seen.
    """
    until = thought.seen_until_seconds
    if until is None:
        return annotation.video
    times = frame_times(annotation.video)
    num_seen = int(is_before(times, until).sum())
    if num_seen == len(times):
        return annotation.video
    if num_seen == 0:
        raise VideoReadError(f"{annotation.video} shows no frame before {until:.3f} s.")
    path = Path(folder) / f"{file_stem(annotation.id)}-until-{until:.3f}s.mp4"
    if not path.exists():
        with written_whole(path) as unfinished:
            _encode(unfinished, _pieces(annotation.video, num_seen, until), times[:num_seen])
    return path


def file_stem(name: str) -> str:
    """A file name for an id: the id itself where every file system takes it, else a hash of it."""
    return name if _SAFE_NAME.fullmatch(name) else sha256(name.encode()).hexdigest()[:20]


def _pieces(path: Path, num_frames: int, until: float) -> Iterator[np.ndarray]:
    for first in range(0, num_frames, _FRAMES_AT_ONCE):
        yield read_frames(path, np.arange(first, min(first + _FRAMES_AT_ONCE, num_frames)), before=until)


def _encode(path: Path, pieces: Iterator[np.ndarray], times: np.ndarray) -> None:
    """Write frames with the times they had, one column or row less where their size is odd."""
    rate = Fraction((len(times) - 1) / times[-1] if len(times) > 1 else 1.0).limit_denominator(1001)
    frames = (frame for piece in pieces for frame in piece)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        for position, (frame, seconds) in enumerate(zip(frames, times, strict=True)):
            even = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
            if position == 0:
                stream.height, stream.width = even.shape[:2]
            picture = av.VideoFrame.from_ndarray(even, format="rgb24")
            picture.pts, picture.time_base = round(float(seconds) / float(_TIME_BASE)), _TIME_BASE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
