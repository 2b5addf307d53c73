"""The clip's own moments that annotations name as the thought video: intervals, key frames, and boxes around what counts.

Nothing is shown that the question does not see: a moment at or after the time it is asked at, or outside of the part that it
is about, is a reason to reject the row.

Axes: T frames, M moments, H height, W width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from storm_hf.annotations.record import Annotation, Box
from storm_hf.errors import VideoReadError
from storm_hf.settings import PositiveFloat, PositiveInt, check_values
from storm_hf.thought_video.clip_part import (
    SAME_MOMENT_SECONDS,
    end_of,
    frame_times,
    is_before,
    read_frames,
    seen_until,
)
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.video.sample import frames_shown_at


_ROUNDED_SECONDS = 1.0  # annotators round up to whole seconds: as far as a moment may lie beyond the end of the clip
_COLORS = ("#ff2d2d", "#2d7dff", "#ffd22d", "#2dd25a", "#d22dff", "#ff8c1a")  # of boxes, by their labels
_INAPPLICABLE = {
    "scene_break": "moments that lie apart are cut together",
    "first_frame": "it begins at the first moment that is named, and not where the clip ends",
    "answer_free": "the moments are those of the annotation, whatever the prompt says, so the control would be the same video",
}


@dataclass(frozen=True)
class Moment:
    """A stretch of the clip to show.

    Args:
        start (`float`):
            In seconds.
        end (`float`):
            In seconds; that of a key frame is its start.
        boxes (`tuple[Box, ...]`, *optional*, defaults to `()`):
            Drawn into its frames.
    """

    start: float
    end: float
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvidenceGenerator:
    """Shows the key frames that an annotation names, with their boxes, or else its intervals.

    Args:
        num_frames (`int`, *optional*, defaults to `12`):
            Frames of each thought video. Key frames share them evenly, and intervals by their length; each has one at least.
        fps (`float`, *optional*, defaults to `2.0`):
            Frames shown per second.
        draws_boxes (`bool`, *optional*, defaults to `True`):
            Whether boxes are drawn into key frames. A label has one colour throughout a thought video.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    source: ClassVar[str] = "evidence"
    name: ClassVar[str] = "storm_hf.thought_video.evidence"
    revision: ClassVar[str] = "1"
    license: ClassVar[str] = "as the clip"
    inapplicable_gates: ClassVar[Mapping[str, str]] = _INAPPLICABLE

    num_frames: PositiveInt = 12
    fps: PositiveFloat = 2.0
    draws_boxes: bool = True

    def __post_init__(self) -> None:
        check_values(self)

    def generate(self, annotation: Annotation, *, prompt: str = "", seed: int) -> ThoughtVideo | Rejected:
        """Read the moments of the clip, in their order.

        Args:
            annotation ([`Annotation`]):
                The question with its `key_frames` or `intervals`.
            prompt (`str`, *optional*, defaults to `""`):
                Ignored: the clip takes no prompt.
            seed (`int`):
                Recorded; nothing is drawn by lot.

        Returns:
            [`ThoughtVideo`] with its frames in memory and the licence of the clip. [`Rejected`] where no moment is named, one
            lies outside of the clip or of what the question sees, there are more than frames, or the clip is damaged.
        """
        moments = _moments(annotation)
        if not 1 <= len(moments) <= self.num_frames:
            return _miscounted(annotation, len(moments), self.num_frames)
        try:
            times = frame_times(annotation.video)
            if rejected := _misplaced(annotation, moments, end_of(times)):
                return rejected
            frames = self._read(annotation, moments, times)
        except VideoReadError as error:
            return Rejected.of(error)
        return ThoughtVideo(
            fps=self.fps,
            source=self.source,
            generator=self.name,
            generator_revision=self.revision,
            license=annotation.license,
            seed=seed,
            frames=frames,
            seen_until_seconds=annotation.time_seconds,
        )

    def _read(self, annotation: Annotation, moments: Sequence[Moment], times: np.ndarray) -> np.ndarray:
        """Read the frames of all moments, (T, H, W, 3), and draw the boxes."""
        counts = shared_frames([moment.end - moment.start for moment in moments], self.num_frames)
        ticks = [
            moment.start + (min(moment.end, end_of(times)) - moment.start) * (np.arange(count) + 0.5) / count
            if moment.end > moment.start
            else np.full(count, moment.start)
            for moment, count in zip(moments, counts, strict=True)
        ]
        positions = frames_shown_at(times, np.concatenate(ticks))
        frames = read_frames(annotation.video, positions, before=seen_until(annotation))
        if not self.draws_boxes:
            return frames
        labels = sorted({box.label for moment in moments for box in moment.boxes})
        boxes = [moment.boxes for moment, count in zip(moments, counts, strict=True) for _ in range(count)]
        return np.stack([_drawn(frame, each, labels) for frame, each in zip(frames, boxes, strict=True)])


def _moments(annotation: Annotation) -> list[Moment]:
    """Key frames where there are some, else intervals, by their time. Intervals that overlap are one."""
    if annotation.key_frames:
        return [Moment(frame.seconds, frame.seconds, frame.boxes) for frame in annotation.key_frames]
    moments: list[Moment] = []
    for start, end in sorted(annotation.intervals):
        if moments and start <= moments[-1].end:
            moments[-1] = Moment(moments[-1].start, max(end, moments[-1].end))
        else:
            moments.append(Moment(start, end))
    return moments


def _miscounted(annotation: Annotation, count: int, num_frames: int) -> Rejected:
    if count == 0:
        return Rejected(f"no evidence: {annotation.id!r} names no interval and no key frame")
    return Rejected(
        f"too many moments: {annotation.id!r} names {count}, and a thought video has {num_frames} frames; raise num_frames"
    )


def _misplaced(annotation: Annotation, moments: Sequence[Moment], duration: float) -> Rejected | None:
    """Reject a moment that the clip does not have, or that the question does not see."""
    first, until = annotation.start_seconds or 0.0, seen_until(annotation)
    for moment in moments:
        words = f"{annotation.id!r} names {_words_of(moment)}"
        if moment.end > duration + _ROUNDED_SECONDS or moment.end > moment.start >= duration:
            return Rejected(f"outside the clip: {words}, but {annotation.video} lasts {duration:.2f} s")
        begins_late = not is_before(np.array(moment.start), until)
        if begins_late or moment.end > until + SAME_MOMENT_SECONDS or moment.start < first - SAME_MOMENT_SECONDS:
            end = "its end" if np.isinf(until) else f"{until:g} s"
            return Rejected(f"not seen: {words}, but the question sees its clip from {first:g} s to {end}")
    return None


def _words_of(moment: Moment) -> str:
    if moment.start == moment.end:
        return f"the moment {moment.start:g} s"
    return f"the interval {moment.start:g} s to {moment.end:g} s"


def shared_frames(lengths: Sequence[float], num_frames: int) -> list[int]:
    """Share frames among moments by their lengths, each of them one at least.

    Args:
        lengths (`Sequence[float]`):
            Length of each moment; those of no length share evenly.
        num_frames (`int`):
            As many as there are moments, or more.

    Returns:
        `list[int]`: Frames of each moment, `num_frames` in all.
    """
    shares = np.asarray(lengths, dtype=np.float64)
    shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(shares), 1 / len(shares))
    wanted = shares * num_frames
    counts = np.ones(len(shares), dtype=int)
    for _ in range(num_frames - len(shares)):
        counts[int(np.argmax(wanted - counts))] += 1
    return counts.tolist()


def _drawn(frame: np.ndarray, boxes: Sequence[Box], labels: Sequence[str]) -> np.ndarray:
    """Draw boxes into a frame (H, W, 3)."""
    if not boxes:
        return frame
    picture = Image.fromarray(frame)
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    for box in boxes:
        shares = (box.left, box.top, box.right, box.bottom)
        sides = [round(share * (size - 1)) for share, size in zip(shares, (width, height) * 2, strict=True)]
        color = _COLORS[labels.index(box.label) % len(_COLORS)]
        draw.rectangle(sides, outline=color, width=max(2, round(min(width, height) / 100)))
    return np.asarray(picture)
