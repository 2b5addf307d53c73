"""A real clip's own continuation as the thought video: what happens next, without any model's mistakes.

The question may then see its clip only until the continuation begins. The thought video says so itself
(`seen_until_seconds`), `question_clip` cuts the clip there, and a `ThoughtExample` refuses one that goes on.
"""

import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.thought_video.clip_part import (
    SAME_MOMENT_SECONDS,
    end_of,
    frame_times,
    is_before,
    read_frames,
    seen_frames,
)
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.video.sample import frames_shown_at


class FutureGenerator:
    """Shows what the clip itself shows after the moment that the question is asked at.

    Args:
        horizon_seconds (`float`, *optional*, defaults to `4.0`):
            Length of the continuation. Clips that end before are rejected, so that all thought videos are of one length.
        fps (`float`, *optional*, defaults to `2.0`):
            Frames taken per second.
        fraction (`float`, *optional*, defaults to `0.5`):
            Moment of a question without a time: this share of its part of the clip is seen.

    Raises:
        ConfigurationError: If the horizon holds no frame, or the fraction is not between 0 and 1.
    """

    source = "future"
    name = "storm_hf.thought_video.future"
    revision = "1"
    license = "as the clip"

    def __init__(self, *, horizon_seconds: float = 4.0, fps: float = 2.0, fraction: float = 0.5) -> None:
        if not (fps > 0 and round(horizon_seconds * fps) >= 1):
            raise ConfigurationError(
                f"Expected a horizon that holds a frame but got {horizon_seconds} s at {fps} frames per second."
            )
        if not 0 < fraction < 1:
            raise ConfigurationError(f"Expected a fraction between 0 and 1 but got {fraction}.")
        self.horizon_seconds = horizon_seconds
        self.fps = fps
        self.fraction = fraction

    def generate(self, annotation: Annotation, *, prompt: str = "", seed: int) -> ThoughtVideo | Rejected:
        """Read the continuation of the clip, from the question's moment on.

        Args:
            annotation ([`Annotation`]):
                Its time says the moment; else it is `fraction` of its part of the clip.
            prompt (`str`, *optional*, defaults to `""`):
                Ignored: the continuation takes no prompt.
            seed (`int`):
                Recorded; nothing is drawn.

        Returns:
            [`ThoughtVideo`] with its frames in memory and the licence of the clip, or [`Rejected`] where nothing is seen
            before the moment, less than the horizon comes after it, or the clip is damaged.
        """
        try:
            times = frame_times(annotation.video)
            moment = self._moment(annotation, times)
            if reason := self._too_little(annotation, times, moment):
                return Rejected(f"too short: {reason}")
            frames = read_frames(annotation.video, self._positions(times, moment))
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
            seen_until_seconds=moment,
        )

    def _moment(self, annotation: Annotation, times: np.ndarray) -> float:
        if annotation.time_seconds is not None:
            return annotation.time_seconds
        start = annotation.start_seconds or 0.0
        end = end_of(times) if annotation.end_seconds is None else min(annotation.end_seconds, end_of(times))
        return round(start + self.fraction * (end - start), 3)

    def _too_little(self, annotation: Annotation, times: np.ndarray, moment: float) -> str | None:
        if len(seen_frames(annotation, times, moment)) == 0:
            return f"{annotation.video} shows nothing before {moment:.3f} s, where {annotation.id!r} is asked"
        left = end_of(times) - moment
        if left < self.horizon_seconds - SAME_MOMENT_SECONDS:
            return (
                f"{annotation.video} goes on for {max(left, 0.0):.3f} s after {moment:.3f} s, where {annotation.id!r} is "
                f"asked; {self.horizon_seconds:g} s are needed"
            )
        return None

    def _positions(self, times: np.ndarray, moment: float) -> np.ndarray:
        """Frames on screen at each tick from the moment on, none of them from before it."""
        ticks = moment + np.arange(round(self.horizon_seconds * self.fps)) / self.fps
        return np.maximum(frames_shown_at(times, ticks), int(is_before(times, moment).sum()))
