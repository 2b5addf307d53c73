"""Does a thought video help a frozen model to answer? One that does not teaches nothing about the answer.

    visual gain  =  score(answer | clip, question, thought video)  -  score(answer | clip, question)

The model that scores lies in a layer above; here is what is asked of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.thought_video.generator import ThoughtVideoGenerator
from storm_hf.thought_video.prompt import PromptWriter
from storm_hf.thought_video.record import Rejected, ThoughtVideo


class AnswerScorer(Protocol):
    """A frozen model that says how well it answers."""

    def score(self, annotation: Annotation, thought: ThoughtVideo | None) -> float:
        """Score the right answer of a question, higher is better.

        Args:
            annotation ([`Annotation`]):
                The question. The model sees its clip until the moment it is asked at.
            thought ([`ThoughtVideo`], *optional*):
                Shown after the clip; None is the question as it is.

        Returns:
            `float`: Log-likelihood of the answer in nats, or 1.0 and 0.0 for right and wrong. One of the two throughout.
        """
        ...


def visual_gain(scorer: AnswerScorer, annotation: Annotation, thought: ThoughtVideo) -> float:
    """How much better the answer scores with the thought video than without."""
    return scorer.score(annotation, thought) - scorer.score(annotation, None)


@dataclass(frozen=True)
class VisualGainGate:
    """Refuses a thought video that does not help.

    Args:
        scorer ([`AnswerScorer`]):
            The frozen model.
        min_gain (`float`, *optional*, defaults to `0.0`):
            A gain above it is needed.
    """

    scorer: AnswerScorer
    min_gain: float = 0.0

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Score with and without."""
        gain = visual_gain(self.scorer, annotation, thought)
        if gain > self.min_gain:
            return None
        return f"visual gain: the answer scores {gain:+.3f} with the thought video; more than {self.min_gain:+g} is needed"


@dataclass(frozen=True)
class AnswerFreeGate:
    """Refuses a thought video that helps no more than its control: one made alike, by a prompt that does not say the answer.

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

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Make the control and score both."""
        try:
            prompt = self.writer.write(annotation)
        except DatasetError as error:
            return f"no control: {error}"
        control = self.generator.generate(annotation, prompt=prompt, seed=thought.seed)
        if isinstance(control, Rejected):
            return f"no control: {control.reason}"
        advantage = self.scorer.score(annotation, thought) - self.scorer.score(annotation, control)
        if advantage > self.min_advantage:
            return None
        return (
            f"answer-free control: the answer scores {advantage:+.3f} against a thought video made without it; more than "
            f"{self.min_advantage:+g} is needed"
        )


@dataclass(frozen=True)
class GainReport:
    """What thought videos of a data set gain.

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
