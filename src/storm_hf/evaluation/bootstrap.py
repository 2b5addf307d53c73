"""How sure a mean is: paired bootstrap intervals, with questions about the same video drawn together.

The questions of a video are not independent, so what is drawn again is whole clusters (videos), not questions.

Axes: N questions, C clusters, R resamples.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np

from storm_hf.errors import IntervalError


_DRAWS_AT_ONCE = 4_000_000  # bounds the memory: 32 MB of positions
_Z_95 = 1.96


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Args:
        mean (`float`):
            Of the values at hand.
        low (`float`):
            Lower end.
        high (`float`):
            Upper end.
    """

    mean: float
    low: float
    high: float


class Draws(TypedDict, total=False):
    """How clusters are drawn again; see [`mean_interval`]."""

    clusters: Sequence[Hashable] | np.ndarray | None
    num_resamples: int
    seed: int


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Give the mean of some values with its 95 % percentile bootstrap interval.

    Args:
        values (`Sequence[float]` of length `num_questions`):
            One per question.
        clusters (`Sequence` of length `num_questions`, *optional*):
            What each question belongs to, such as the name of its video. By default each stands alone.
        num_resamples (`int`, *optional*, defaults to `10_000`):
            How often the clusters are drawn again, with replacement.
        seed (`int`, *optional*, defaults to `0`):
            Of the draws. Comparisons over the same clusters share the draws of a seed.

    Raises:
        IntervalError: If there is no value, a value is not finite, or clusters are given for another number of questions.
    """
    numbers = _checked(values)
    totals, sizes = _sum_by_cluster(numbers, clusters)
    means = np.concatenate(list(_resampled_means(totals, sizes, num_resamples, seed)))  # (R,)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    **draws: Unpack[Draws],
) -> Interval:
    """Give the mean of `first - second` over the same questions, with its 95 % interval.

    Args:
        first (`Sequence[float]` of length `num_questions`):
            Scores of one way of answering.
        second (`Sequence[float]` of length `num_questions`):
            Scores of the other, question by question.
        draws:
            `clusters`, `num_resamples` and `seed` of [`mean_interval`].

    Raises:
        IntervalError: As there, or if the two differ in length.
    """
    if len(first) != len(second):
        raise IntervalError(
            f"Expected two scores per question but got {len(first)} and {len(second)}. Compare the same questions."
        )
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return mean_interval(differences, **draws)


def share_interval(is_true: Sequence[bool] | np.ndarray, **draws: Unpack[Draws]) -> Interval:
    """Give a share of questions with a 95 % interval that stays honest at none and at all.

    Where every question agrees, each resample agrees too, and the bootstrap's interval has no width, however few the
    questions. So the ends are those of the bootstrap or of Wilson's interval over the clusters, whichever lies further out.

    Args:
        is_true (`Sequence[bool]` of length `num_questions`):
            Whether each question counts.
        draws:
            `clusters`, `num_resamples` and `seed` of [`mean_interval`].

    Raises:
        IntervalError: As there.
    """
    values = np.asarray(is_true, dtype=np.float64)
    drawn = mean_interval(values, **draws)
    clusters = draws.get("clusters")
    num_clusters = len(values) if clusters is None else len(set(clusters))
    low, high = wilson_interval(drawn.mean, num_clusters)
    return Interval(drawn.mean, min(drawn.low, low), max(drawn.high, high))


def wilson_interval(share: float, num_trials: int) -> tuple[float, float]:
    """Give the 95 % interval of a share that was counted in independent trials (Wilson, 1927)."""
    spread = _Z_95**2 / num_trials
    middle = (share + spread / 2) / (1 + spread)
    half = _Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / num_trials + spread / (4 * num_trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def _checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise IntervalError(
            f"Expected one finite number per question, and at least one, but got an array of shape {numbers.shape} with "
            f"{int((~np.isfinite(numbers)).sum())} that are not finite. Leave out what was not measured."
        )
    return numbers


def _sum_by_cluster(
    numbers: np.ndarray, clusters: Sequence[Hashable] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Add up values and count questions per cluster: two arrays (C,), in the order in which clusters appear."""
    if clusters is None:
        return numbers, np.ones_like(numbers)
    if len(clusters) != len(numbers):
        raise IntervalError(f"Expected a cluster for each of {len(numbers)} questions but got {len(clusters)}.")
    number_of: dict[Hashable, int] = {}
    member = np.array([number_of.setdefault(cluster, len(number_of)) for cluster in clusters])
    return np.bincount(member, numbers), np.bincount(member).astype(np.float64)


def _resampled_means(totals: np.ndarray, sizes: np.ndarray, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    num_clusters = len(totals)
    step = max(1, _DRAWS_AT_ONCE // num_clusters)
    for start in range(0, num_resamples, step):
        drawn = generator.integers(num_clusters, size=(min(step, num_resamples - start), num_clusters))
        yield totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
