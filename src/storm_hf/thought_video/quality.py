"""Quality gates of thought videos. A gate gives the reason for a rejection, and reasons are counted.

Axes: T frames, H height, W width.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, PromptError, VideoReadError
from storm_hf.thought_video.clip_part import cropped_to, read_last_seen, read_seen
from storm_hf.thought_video.record import Rejected, ThoughtVideo


_COMPARED_SIDE_PX = 32  # frames are compared this small: noise of cameras and codecs is gone, objects are not
_NOISE = 2.0  # of 255: what is left of the noise at that size


class Gate(Protocol):
    """Refuses thought videos of one kind."""

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Give the reason to reject the thought video of a question, or None.

        Returns:
            `str`, *optional*: A kind of few words, a colon, and what was measured: `"static: …"`. Kinds are counted.

        Raises:
            VideoReadError: If a video cannot be read.
        """
        ...


@dataclass(frozen=True)
class Assessment:
    """Assessment of a thought video by the gates.

    Args:
        reason (`str`, *optional*):
            Reason to reject it; None if it is kept.
        scores (`Mapping[str, float]`, *optional*):
            Measured scores, for the record.
        timeout_seconds (`float`, *optional*):
            Time that reading had, where that was not enough.
    """

    reason: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    timeout_seconds: float | None = None


@runtime_checkable
class MeasuringGate(Gate, Protocol):
    """A gate whose numbers are kept with the thought video, whatever it decides."""

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """The reason of `measure` without its numbers."""
        return self.measure(annotation, thought).reason

    def measure(self, annotation: Annotation, thought: ThoughtVideo) -> Assessment:
        """Give the reason to reject the thought video of a question, if any, with the numbers that decide it."""
        ...


@dataclass(frozen=True)
class StaticGate:
    """Refuses a thought video in which nothing happens.

    Args:
        min_change (`float`, *optional*, defaults to `0.1`):
            Least mean absolute difference to the first frame, 0 to 255 and above the noise, of the frame that differs most.
            A ball of a thousandth of the picture, 100 brighter than the rest, that moves by its own size changes 0.2.
    """

    min_change: float = 0.1

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Measure how far the frames go from the first one."""
        frames = _small(thought.read())
        difference = np.maximum(np.abs(frames - frames[:1]) - _NOISE, 0)
        change = float(difference.mean(axis=(1, 2, 3)).max())
        if change >= self.min_change:
            return None
        return f"static: no frame differs from the first one by more than {change:.3f} of 255; {self.min_change:g} is needed"


@dataclass(frozen=True)
class SceneBreakGate:
    """Refuses a thought video that cuts to another scene.

    Args:
        max_ratio (`float`, *optional*, defaults to `8.0`):
            Largest difference between neighbouring frames over the median of them.
        min_jump (`float`, *optional*, defaults to `20.0`):
            A difference below, of 255, is no cut, however still the rest is.
    """

    max_ratio: float = 8.0
    min_jump: float = 20.0

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Compare the largest jump with the usual one."""
        frames = _small(thought.read())
        jumps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        if len(jumps) < 2 or jumps.max() < max(self.min_jump, self.max_ratio * float(np.median(jumps))):
            return None
        return (
            f"scene break: frame {int(jumps.argmax()) + 1} differs from the one before by {jumps.max():.1f} of 255, "
            f"the usual difference is {float(np.median(jumps)):.1f}"
        )


@dataclass(frozen=True)
class FirstFrameGate:
    """Refuses a thought video that does not begin where it should: at the question's clip.

    Args:
        begins_at (`str`, *optional*, defaults to `"last"`):
            `last` frame that the question sees, or `first` one.
        max_difference (`float`, *optional*, defaults to `40.0`):
            Largest mean absolute difference of the two pictures, 0 to 255.

    Raises:
        ConfigurationError: If `begins_at` is neither.
    """

    begins_at: str = "last"
    max_difference: float = 40.0

    def __post_init__(self) -> None:
        if self.begins_at not in ("first", "last"):
            raise ConfigurationError(f"Expected begins_at to be first or last but got {self.begins_at!r}.")

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Compare the first frame with the one of the clip, cropped to the same shape."""
        first = thought.read()[0]
        begin = read_last_seen(annotation, 1, 1.0)[0] if self.begins_at == "last" else read_seen(annotation, 2)[0]
        cropped = cropped_to(begin, first.shape[0], first.shape[1])
        difference = float(np.abs(_small(first[None]) - _small(cropped[None])).mean())
        if difference <= self.max_difference:
            return None
        return (
            f"first frame: it differs from the {self.begins_at} frame that the question sees by {difference:.1f} of 255; "
            f"at most {self.max_difference:g} is allowed"
        )


@dataclass(frozen=True)
class QualityReport:
    """Counts of kept and rejected thought videos, by reason. Reports of shards add up.

    Args:
        num_kept (`int`, *optional*, defaults to `0`):
            Kept.
        num_rejected (`Mapping[str, int]`, *optional*):
            From the kind of reason to how many.
    """

    num_kept: int = 0
    num_rejected: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, verdicts: Iterable[Rejected | None]) -> "QualityReport":
        """Count verdicts; None is a thought video that was kept."""
        kinds = [verdict.kind if verdict else None for verdict in verdicts]
        rejected = Counter(kind for kind in kinds if kind is not None)
        return cls(kinds.count(None), dict(sorted(rejected.items())))

    def __add__(self, other: "QualityReport") -> "QualityReport":
        rejected = Counter(self.num_rejected) + Counter(other.num_rejected)
        return QualityReport(self.num_kept + other.num_kept, dict(sorted(rejected.items())))

    @property
    def num_checked(self) -> int:
        """All of them."""
        return self.num_kept + sum(self.num_rejected.values())


def assess(gates: Sequence[Gate], annotation: Annotation, thought: ThoughtVideo) -> Assessment:
    """Send a thought video through the gates, in their order, until one refuses it. It is decoded once.

    Args:
        gates (`Sequence[Gate]`):
            Cheap ones first.
        annotation ([`Annotation`]):
            The question.
        thought ([`ThoughtVideo`]):
            Its thought video. The gates see the question's clip until the moment where it begins.

    Returns:
        [`Assessment`]: The reason of the first gate that refuses, `unreadable: …` where a video cannot be read, or
        `unscorable: …` where a model that judges cannot look at it; and what the gates until then measured.
    """
    asked, scores = as_seen(annotation, thought), dict[str, float]()
    try:
        loaded = thought.in_memory() if gates else thought
        for gate in gates:
            if isinstance(gate, MeasuringGate):
                said = gate.measure(asked, loaded)
            else:
                said = Assessment(gate.check(asked, loaded))
            scores |= said.scores
            if said.reason is not None:
                return Assessment(said.reason, scores)
    except VideoReadError as error:
        rejected = Rejected.of(error)
        return Assessment(rejected.reason, scores, rejected.timeout_seconds)
    except PromptError as error:
        return Assessment(f"unscorable: {error}", scores)
    return Assessment(None, scores)


def judge(gates: Sequence[Gate], annotation: Annotation, thought: ThoughtVideo) -> Rejected | None:
    """The verdict of `assess` without its numbers: [`Rejected`], or None where the thought video is to be kept."""
    reason = assess(gates, annotation, thought).reason
    return None if reason is None else Rejected(reason)


def as_seen(annotation: Annotation, thought: ThoughtVideo) -> Annotation:
    """The question, asked where its thought video begins if that is recorded: nothing later may be seen."""
    until = thought.seen_until_seconds
    return annotation if until is None else replace(annotation, time_seconds=until)


def _small(frames: np.ndarray) -> np.ndarray:
    """Frames of at most 32 x 32, as float32: means of what lies under each pixel."""
    size = (min(_COMPARED_SIDE_PX, frames.shape[2]), min(_COMPARED_SIDE_PX, frames.shape[1]))
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames]
    return np.stack([np.asarray(image, dtype=np.float32) for image in images])
