"""A film's own parts in their true order as the thought video: reasoning without an annotator and without a model's mistakes.

    order   thought video: the three shuffled parts, as the film has them
    next    thought video: the candidate that follows in the film

The clip that a question sees is cut here too. Both are read from the film, at the moments and in the crop that the seed drew.

Axes: P parts, T frames, H height, W width.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.settings import PositiveInt, check_value
from storm_hf.thought_video.clip_part import SAME_MOMENT_SECONDS, end_of, frame_times, read_frames
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.thought_video.segment_questions import NUM_ORDERED, SegmentQuestion, SegmentSettings, SegmentTask
from storm_hf.video import write_video
from storm_hf.video.sample import frames_shown_at


_ID = re.compile(r"[^-]+-(order|next)-\d+-(.+)", re.DOTALL)


def segment_id(split: str, task: SegmentTask, number: int, film: str) -> str:
    """Name a question after its task and film, as [`SegmentsGenerator`] reads it."""
    return f"{split}-{task}-{number:06d}-{film}"


class SegmentsGenerator:
    """Shows the parts of a film in the film's own order, and cuts the clips of the questions.

    Args:
        films (`Mapping[str, Path]`):
            Films by their names, which stand in the ids of questions.
        settings ([`SegmentSettings`]):
            Settings of the questions.
        num_frames (`int`, *optional*, defaults to `12`):
            Frames of each thought video. A vision tower that joins two frames makes half as many steps of them.

    Raises:
        ConfigurationError: If the frames do not divide into the three parts of `order`.
    """

    source = "segments"
    name = "storm_hf.thought_video.segments"
    revision = "1"
    license = "as the film"

    def __init__(self, films: Mapping[str, Path], settings: SegmentSettings, num_frames: int = 12) -> None:
        check_value("num_frames", num_frames, PositiveInt)
        if "order" in settings.tasks and num_frames % NUM_ORDERED:
            raise ConfigurationError(
                f"Expected num_frames as a multiple of {NUM_ORDERED}, the parts of `order`, but got {num_frames}."
            )
        self.films = films
        self.settings = settings
        self.num_frames = num_frames
        self._times: dict[Path, np.ndarray] = {}  # of the films that were opened

    def generate(self, annotation: Annotation, *, prompt: str = "", seed: int) -> ThoughtVideo | Rejected:
        """Read the parts of the film that show the answer.

        Args:
            annotation ([`Annotation`]):
                The question, under the id that `segment_id` gives: it names task and film.
            prompt (`str`, *optional*, defaults to `""`):
                Ignored: the film takes no prompt.
            seed (`int`):
                Seed that the question was drawn from.

        Returns:
            [`ThoughtVideo`] with its frames in memory and the licence of the film, or [`Rejected`] where the film is unknown,
            unreadable or too short, or the seed draws another question.
        """
        asked = self._question(annotation, seed)
        if isinstance(asked, Rejected):
            return asked
        film, drawn = asked
        frames = self._read(film, drawn, drawn.thought, self.num_frames // len(drawn.thought))
        if isinstance(frames, Rejected):
            return frames
        return ThoughtVideo(
            fps=self.num_frames / (len(drawn.thought) * self.settings.segment_seconds),
            source=self.source,
            generator=self.name,
            generator_revision=self.revision,
            license=annotation.license,
            seed=seed,
            frames=frames,
        )

    def write_clip(self, annotation: Annotation, seed: int) -> Rejected | None:
        """Cut the parts that a question shows, and join them to its clip.

        Returns:
            [`Rejected`], *optional*: The reason where no clip could be written, as for `generate`.
        """
        asked = self._question(annotation, seed)
        if isinstance(asked, Rejected):
            return asked
        film, drawn = asked
        frames = self._read(film, drawn, drawn.shown, self.settings.frames_per_segment)
        if isinstance(frames, Rejected):
            return frames
        write_video(annotation.video, frames, fps=self.settings.frames_per_segment / self.settings.segment_seconds)
        return None

    def _question(self, annotation: Annotation, seed: int) -> tuple[Path, SegmentQuestion] | Rejected:
        """Find the film of a question, and draw it anew to make sure that it is the one that is asked."""
        named = _ID.fullmatch(annotation.id)
        film = named and self.films.get(named[2])
        if not named or not film:
            return Rejected(f"unknown film: {annotation.id!r} names none of the {len(self.films)} films of its split")
        drawn = SegmentQuestion.draw(cast(SegmentTask, named[1]), seed, self.settings)
        if (drawn.question, drawn.answer) != (annotation.question, annotation.answer):
            return Rejected(
                f"other question: the seed {seed} asks {drawn.question!r}, answered {drawn.answer!r}, but {annotation.id!r} "
                f"asks {annotation.question!r}, answered {annotation.answer!r}"
            )
        return film, drawn

    def _read(
        self, film: Path, drawn: SegmentQuestion, parts: Sequence[int], frames_per_part: int
    ) -> np.ndarray | Rejected:
        """Read parts of a film one after the other, (P * T, H, W, 3)."""
        try:
            times = self._times_of(film)
            if reason := self._too_short(film, drawn, end_of(times)):
                return Rejected(f"too short: {reason}")
            seconds = self.settings.segment_seconds
            starts = drawn.starts(end_of(times), seconds)[list(parts)]  # (P,)
            moments = starts[:, None] + np.arange(frames_per_part) * (seconds / frames_per_part)  # (P, T)
            frames = read_frames(film, frames_shown_at(times, moments.ravel()))
        except VideoReadError as error:
            return Rejected.of(error)
        return np.stack([cropped(frame, drawn.crop, self.settings.frame_size) for frame in frames])

    def _times_of(self, film: Path) -> np.ndarray:
        if film not in self._times:
            self._times[film] = frame_times(film)
        return self._times[film]

    def _too_short(self, film: Path, drawn: SegmentQuestion, duration: float) -> str | None:
        needed = len(drawn.arrangement) * self.settings.segment_seconds
        if duration >= needed - SAME_MOMENT_SECONDS:
            return None
        return (
            f"{film} lasts {duration:.2f} s, and a question of the kind {drawn.task} needs {needed:g} s. Use segment_seconds of "
            f"{duration / len(drawn.arrangement):.2f} or less, or take the film out"
        )


def cropped(frame: np.ndarray, crop: tuple[float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Cut a part out of a frame and scale it to a size.

    Args:
        frame (`np.ndarray` of shape `(any_height, any_width, 3)`):
            RGB, `uint8`.
        crop (`tuple[float, float, float]`):
            See [`SegmentQuestion`].
        size (`tuple[int, int]`):
            Height and width of the result, in pixels. The part has their ratio.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: RGB, `uint8`.
    """
    share, from_left, from_top = crop
    height, width = size
    scale = share * min(frame.shape[0] / height, frame.shape[1] / width)
    left, top = from_left * (frame.shape[1] - scale * width), from_top * (frame.shape[0] - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box))
