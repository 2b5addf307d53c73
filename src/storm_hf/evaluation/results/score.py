"""Accuracy with its denominator, its interval, and the number of unreadable answers.

Standard errors are clustered by video, since questions about one video are not independent (Miller 2024, "Adding Error Bars to
Evals", arXiv 2411.00640, equation 4): with scores s of n questions in clusters c, mean m,

    SE^2 = 1/n^2 * sum over c of (sum over i in c of (s_i - m))^2
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def clustered_standard_error(scores: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Standard error of the mean of `scores` when those of a cluster belong together, `None` with less than two clusters."""
    _, members = np.unique(np.array(clusters, dtype=str), return_inverse=True)
    if not len(members) or members.max() == 0:
        return None
    residuals = np.asarray(scores, dtype=np.float64) - np.mean(scores)
    return math.sqrt(float((np.bincount(members, residuals) ** 2).sum())) / len(scores)
