"""Visual gain: whether a thought video helps a frozen model to answer. One that does not teaches nothing about the answer.

    visual gain  =  score(answer | clip, question, thought video)  -  score(answer | clip, question)
    advantage    =  score(answer | clip, question, thought video)  -  score(answer | clip, question, control)
    giveaway     =  score(answer | thought video, options)

The control is a thought video made alike, by a prompt without the answer. The giveaway is what the thought video says where
neither clip nor question is shown. The model that scores lies in a layer above; here is what is asked of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.thought_video.generator import ThoughtVideoGenerator
from storm_hf.thought_video.prompt import PromptWriter
from storm_hf.thought_video.quality import Assessment, MeasuringGate, as_seen
from storm_hf.thought_video.record import Rejected, ThoughtVideo


_DIGITS = 4  # of a score that is kept: what lies behind differs between processors


class AnswerScorer(Protocol):
    """Frozen model that scores an answer."""

    def score(self, annotation: Annotation, thought: ThoughtVideo | None) -> float:
        """Score the correct answer of a question, higher is better.

        Args:
            annotation ([`Annotation`]):
                The question. The model sees its clip until the moment it is asked at.
            thought ([`ThoughtVideo`], *optional*):
                Shown after the clip; None is the question as it is.

        Returns:
            `float`: Log-likelihood of the answer in nats, or 1.0 and 0.0 for right and wrong. One of the two throughout.

        Raises:
            PromptError: If the model cannot look at these videos.
            VideoReadError: If a video cannot be read.
        """
        ...

    def score_alone(self, annotation: Annotation, thought: ThoughtVideo) -> float:
        """Score the correct option where only the thought video is shown: no clip, no question.

        Returns:
            `float`: Logarithm of its probability among the options.
        """
        ...


def visual_gain(scorer: AnswerScorer, annotation: Annotation, thought: ThoughtVideo) -> float:
    """Gain of the answer's score by the thought video."""
    asked = as_seen(annotation, thought)
    return scorer.score(asked, thought) - scorer.score(asked, None)


@dataclass(frozen=True)
class VisualGainGate(MeasuringGate):
    """Rejects a thought video that does not help.

    Args:
        scorer ([`AnswerScorer`]):
            The frozen model.
        min_gain (`float`, *optional*, defaults to `0.0`):
            A gain above it is needed.
    """

    scorer: AnswerScorer
    min_gain: float = 0.0

    def measure(self, annotation: Annotation, thought: ThoughtVideo) -> Assessment:
        """Score with and without, and keep both scores."""
        asked = as_seen(annotation, thought)
        before, after = self.scorer.score(asked, None), self.scorer.score(asked, thought)
        refusal = (
            f"visual gain: the answer scores {after - before:+.3f} with the thought video; more than {self.min_gain:+g} is "
            "needed"
        )
        return _assessment(after - before > self.min_gain, refusal, without_thought=before, with_thought=after)


@dataclass(frozen=True)
class AnswerFreeGate(MeasuringGate):
    """Rejects a thought video that helps no more than its control, made in the same way by a prompt without the answer.

    What a control helps is due to more frames or to the generator's guess, not to reasoning towards this answer.

    Args:
        scorer ([`AnswerScorer`]):
            The frozen model.
        writer ([`PromptWriter`]):
            Writes the control's prompt. It must not see the answer.
        generator ([`ThoughtVideoGenerator`]):
            The one that made the thought video; the control is made from the same seed.
        min_advantage (`float`, *optional*, defaults to `0.0`):
            An advantage above it is needed.

    Raises:
        ConfigurationError: If the writer shows the answer.
    """

    scorer: AnswerScorer
    writer: PromptWriter
    generator: ThoughtVideoGenerator
    min_advantage: float = 0.0

    def __post_init__(self) -> None:
        if self.writer.shows_answer:
            raise ConfigurationError(
                f"Expected a control prompt without the answer but {self.writer.name} shows it. Leave {{answer}} out."
            )

    def measure(self, annotation: Annotation, thought: ThoughtVideo) -> Assessment:
        """Make the control and score both, and keep both scores."""
        try:
            prompt = self.writer.write(annotation)
        except DatasetError as error:
            return Assessment(f"no control: {error}")
        control = self.generator.generate(annotation, prompt=prompt, seed=thought.seed)
        if isinstance(control, Rejected):
            return Assessment(f"no control: {control.reason}")
        asked = as_seen(annotation, thought)
        own, others = self.scorer.score(asked, thought), self.scorer.score(asked, control)
        refusal = (
            f"answer-free control: the answer scores {own - others:+.3f} against a thought video made without it; more than "
            f"{self.min_advantage:+g} is needed"
        )
        return _assessment(own - others > self.min_advantage, refusal, with_thought=own, with_control=others)


@dataclass(frozen=True)
class GiveawayGate(MeasuringGate):
    """Rejects a thought video that gives the answer away without the clip and the question.

    A video model that knows the answer may write it into the picture, and a model that is aligned to that learns to read.
    Open questions pass: where no question is asked there is nothing to answer.

    Args:
        scorer ([`AnswerScorer`]):
            The frozen model.
        max_probability (`float`, *optional*, defaults to `0.9`):
            Of the correct option, shown the thought video and the options alone.

    Raises:
        ConfigurationError: If the probability does not lie between 0 and 1.
    """

    scorer: AnswerScorer
    max_probability: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.max_probability <= 1:
            raise ConfigurationError(f"Expected max_probability above 0 and up to 1 but got {self.max_probability}.")

    def measure(self, annotation: Annotation, thought: ThoughtVideo) -> Assessment:
        """Score the thought video alone, and keep the score."""
        if len(annotation.options) < 2:
            return Assessment()
        score = self.scorer.score_alone(annotation, thought)
        probability = math.exp(score)
        refusal = (
            f"giveaway: without clip and question the answer has the probability {probability:.3f}; at most "
            f"{self.max_probability:g} is allowed"
        )
        return _assessment(probability <= self.max_probability, refusal, thought_alone=score)


@dataclass(frozen=True)
class GainReport:
    """Gain by the thought videos of a data set.

    Args:
        num_scored (`int`):
            Thought videos.
        mean (`float`):
            Of their gains.
        standard_error (`float`):
            Of that mean; NaN for fewer than two.
        share_helped (`float`):
            Share with a gain above zero.
    """

    num_scored: int
    mean: float
    standard_error: float
    share_helped: float

    @classmethod
    def of(cls, gains: Sequence[float]) -> "GainReport":
        """Summarize gains.

        Raises:
            ConfigurationError: If there are none.
        """
        if not gains:
            raise ConfigurationError("Expected the gains of at least one thought video but got none.")
        values = np.asarray(gains, dtype=np.float64)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
        return cls(len(values), float(values.mean()), error, float((values > 0).mean()))


def _assessment(is_kept: bool, refusal: str, **scores: float) -> Assessment:
    recorded = {name: round(score, _DIGITS) for name, score in scores.items()}
    return Assessment(None if is_kept else refusal, recorded)
