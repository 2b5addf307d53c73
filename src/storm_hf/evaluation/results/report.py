"""Report of a run: variants, tasks, sub-scores and scorers, the differences between variants, and how each number was made.

Standard errors are clustered by video, since questions about one video are not independent (Miller 2024, "Adding Error Bars to
Evals", arXiv 2411.00640, equation 4): with scores s of n questions in clusters c, mean m,

    SE^2 = 1/n^2 * sum over c of (sum over i in c of (s_i - m))^2
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from storm_hf.errors import DatasetError
from storm_hf.evaluation.bootstrap import Interval, clustered_standard_error
from storm_hf.evaluation.scorers import Question, Reading


_FEWEST_VIDEOS = 10


@dataclass(frozen=True)
class Score:
    """Accuracy of the answers, by one scorer.

    Args:
        accuracy (`float` or `None`):
            Correct answers over counted ones; `None` if none is counted.
        standard_error (`float` or `None`):
            Of the accuracy, clustered by video; `None` with less than ten videos, from which it would come out too small.
        num_asked (`int`):
            Questions.
        num_counted (`int`):
            The denominator: what the scorer does not leave out.
        num_unreadable (`int`):
            Answers in which the scorer found none.
        num_unjudged (`int`):
            Answers that the scorer leaves to a judge, and none has judged. Where rules come first they are counted as wrong, as
            the benchmarks and lmms-eval do; where a judge reads everything they are not counted.
        num_videos (`int`):
            Clusters among the counted ones.
    """

    accuracy: float | None
    standard_error: float | None
    num_asked: int
    num_counted: int
    num_unreadable: int
    num_unjudged: int
    num_videos: int


def score_readings(questions: Sequence[Question], readings: Sequence[Reading]) -> Score:
    """Count the readings of one scorer.

    Args:
        questions (`Sequence[Question]`):
            Questions that were asked.
        readings (`Sequence[Reading]`):
            Readings of the answers by a scorer, in the same order.
    """
    counted = [
        (bool(reading.correct), cluster_of(question, index))
        for index, (question, reading) in enumerate(zip(questions, readings, strict=True))
        if reading.counted
    ]
    scores, clusters = [score for score, _ in counted], [cluster for _, cluster in counted]
    num_videos = len(set(clusters))
    return Score(
        accuracy=float(np.mean(scores)) if scores else None,
        standard_error=clustered_standard_error(scores, clusters) if num_videos >= _FEWEST_VIDEOS else None,
        num_asked=len(readings),
        num_counted=len(scores),
        num_unreadable=sum(not reading.readable for reading in readings),
        num_unjudged=sum(reading.correct is None for reading in readings),
        num_videos=num_videos,
    )


def cluster_of(question: Question, index: int) -> str:
    """The video of a question; a question without one stands alone."""
    return question.video or f"question {index}"


@dataclass(frozen=True)
class Result:
    """One number of a report.

    Args:
        variant (`str`):
            Way of answering.
        part (`str`):
            Benchmark, or task of one.
        group (`str` or `None`):
            Group of a sub-score, such as `duration: short`; `None` for the whole part.
        scorer (`str`):
            Parser of the answers.
        judge (`str` or `None`):
            Judge of the answers that the scorer left open.
        score ([`Score`]):
            The number, its denominator and its error.
    """

    variant: str
    part: str
    group: str | None
    scorer: str
    judge: str | None
    score: Score


@dataclass(frozen=True)
class Difference:
    """Difference in accuracy between two variants, on the questions that both count.

    Args:
        first (`str`):
            A variant.
        second (`str`):
            The variant that is subtracted.
        part (`str`):
            Benchmark.
        scorer (`str`):
            Parser of the answers.
        interval ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Mean difference of accuracies with its 95 % paired bootstrap interval, videos drawn whole.
        num_questions (`int`):
            Over how many.
        num_videos (`int`):
            About how many videos.
    """

    first: str
    second: str
    part: str
    scorer: str
    interval: Interval
    num_questions: int
    num_videos: int


@dataclass(frozen=True)
class Cost:
    """Cost of an answer, as the harness logged it; `None` for fields that it did not log.

    Args:
        variant (`str`):
            Way of answering.
        part (`str`):
            Benchmark.
        seconds (`float` or `None`):
            Median wall time; in a batch, its share of it.
        forward_passes (`float` or `None`):
            Mean number of calls of the language model.
        output_tokens (`float` or `None`):
            Mean number of generated tokens.
    """

    variant: str
    part: str
    seconds: float | None
    forward_passes: float | None
    output_tokens: float | None


@dataclass(frozen=True)
class Report:
    """Results of a run.

    Args:
        judge (`str` or `None`):
            Judge of the answers that scorers leave open; `None` without one.
        results (`tuple[Result, ...]`):
            All numbers.
        differences (`tuple[Difference, ...]`):
            Between each two variants.
        costs (`tuple[Cost, ...]`):
            Of each variant on each benchmark.
        command (`str` or `None`):
            Command that reproduces it.
        models (`Mapping[str, str]`, *optional*):
            From each variant to its checkpoint, of a name on the Hub with its commit.
    """

    judge: str | None
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    costs: tuple[Cost, ...]
    command: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)

    def score(self, variant: str, part: str, scorer: str, group: str | None = None) -> Score:
        """Find a number.

        Raises:
            DatasetError: If there is none of this name.
        """
        wanted = (variant, part, scorer, group)
        for result in self.results:
            if (result.variant, result.part, result.scorer, result.group) == wanted:
                return result.score
        raise DatasetError(f"Expected a variant, part, scorer and group of the report but got {wanted}.")
