"""Intervals of means: the paired bootstrap, with questions about the same video drawn together.

The questions of a video are not independent, so what is drawn again is whole clusters (videos), not questions. The bootstrap
is too narrow where clusters are few or one of them has most questions: it misses the mean in 59 % of cases with 2, 20 % with 5
and 12 % with 8 clusters instead of 5 %. There the interval is at least that of Student's t over the clusters, with as many
degrees of freedom as clusters of one size would have; it misses 9 % at most. From one cluster nothing follows.

Axes: N questions, C clusters, R resamples.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np

from storm_hf.errors import DatasetError


NUM_RESAMPLES = 10_000
_DRAWS_AT_ONCE = 4_000_000  # bounds the memory: 32 MB of positions
_Z_95 = 1.96
_MANY_CLUSTERS = 50  # from here on the bootstrap stands alone
# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Args:
        mean (`float`):
            Of the values at hand.
        low (`float`):
            Lower end, minus infinity for the mean of one cluster.
        high (`float`):
            Upper end, infinity for the mean of one cluster.
    """

    mean: float
    low: float
    high: float


class Draws(TypedDict, total=False):
    """Settings of the resampling of clusters; see [`mean_interval`]."""

    clusters: Sequence[Hashable] | np.ndarray | None
    num_resamples: int
    seed: int


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Give the mean of some values with its 95 % interval: the bootstrap's, and with few clusters at least Student's t.

    Args:
        values (`Sequence[float]` of length `num_questions`):
            One per question.
        clusters (`Sequence` of length `num_questions`, *optional*):
            Cluster of each question, such as the name of its video. By default each stands alone.
        num_resamples (`int`, *optional*, defaults to `10_000`):
            Number of bootstrap resamples of the clusters, drawn with replacement.
        seed (`int`, *optional*, defaults to `0`):
            Of the draws. Comparisons over the same clusters share the draws of a seed.

    Raises:
        DatasetError: If there is no value, a value is not finite, or clusters are given for another number of questions.
    """
    numbers = _checked(values)
    totals, sizes = _sum_by_cluster(numbers, clusters)
    mean, half = float(numbers.mean()), _half_of_t(totals, sizes)
    low, high = _bootstrap(totals, sizes, num_resamples, seed)
    return Interval(mean, min(low, mean - half), max(high, mean + half))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    **draws: Unpack[Draws],
) -> Interval:
    """Give the mean of `first - second` over the same questions, with its 95 % interval, which lies between -1 and 1.

    Where all clusters agree, so does every resample. Of C clusters that agree, a share of up to 3 / C may still disagree
    unseen (the rule of three, 95 %), so the interval has at least this width then.

    Args:
        first (`Sequence[float]` of length `num_questions`):
            Scores of one way of answering, from 0 to 1.
        second (`Sequence[float]` of length `num_questions`):
            Scores of the other, question by question.
        draws:
            `clusters`, `num_resamples` and `seed` of [`mean_interval`].

    Raises:
        DatasetError: As there, or if the two differ in length.
    """
    if len(first) != len(second):
        raise DatasetError(
            f"Expected two scores per question but got {len(first)} and {len(second)}. Compare the same questions."
        )
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    found = mean_interval(differences, **draws)
    _, sizes = _sum_by_cluster(differences, draws.get("clusters"))
    unseen = 3 / _num_even_clusters(sizes) if found.high == found.low else 0.0
    return Interval(found.mean, max(found.low - unseen, -1.0), min(found.high + unseen, 1.0))


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
        DatasetError: As there.
    """
    values = _checked(np.asarray(is_true, dtype=np.float64))
    totals, sizes = _sum_by_cluster(values, draws.get("clusters"))
    mean = float(values.mean())
    drawn = _bootstrap(totals, sizes, draws.get("num_resamples", NUM_RESAMPLES), draws.get("seed", 0))
    ends = (*drawn, *wilson_interval(mean, len(sizes)))
    return Interval(mean, min(ends), max(ends))


def wilson_interval(share: float, num_trials: int) -> tuple[float, float]:
    """Give the 95 % interval of a share that was counted in independent trials (Wilson, 1927)."""
    spread = _Z_95**2 / num_trials
    middle = (share + spread / 2) / (1 + spread)
    half = _Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / num_trials + spread / (4 * num_trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def clustered_standard_error(
    values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray
) -> float | None:
    """Give the standard error of a mean when the values of a cluster belong together; `None` with less than two clusters.

    Args:
        values (`Sequence[float]` of length `num_questions`):
            One per question.
        clusters (`Sequence` of length `num_questions`):
            Cluster of each question, such as the name of its video.
    """
    totals, sizes = _sum_by_cluster(np.asarray(values, dtype=np.float64), clusters)
    return _standard_error(totals, sizes) if len(sizes) > 1 else None


def _standard_error(totals: np.ndarray, sizes: np.ndarray) -> float:
    residuals = totals - totals.sum() / sizes.sum() * sizes
    return math.sqrt(float((residuals**2).sum())) / float(sizes.sum())


def _bootstrap(totals: np.ndarray, sizes: np.ndarray, num_resamples: int, seed: int) -> tuple[float, float]:
    """Give the percentile interval of the mean over questions."""
    means = np.concatenate(list(_resampled_means(totals, sizes, num_resamples, seed)))  # (R,)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _half_of_t(totals: np.ndarray, sizes: np.ndarray) -> float:
    """Half the width of Student's interval over clusters; 0 where there are many."""
    num_clusters, even = len(sizes), _num_even_clusters(sizes)
    if num_clusters == 1:
        return math.inf
    if even >= _MANY_CLUSTERS:
        return 0.0
    error = math.sqrt(num_clusters / (num_clusters - 1)) * _standard_error(totals, sizes)
    freedom = max(round(even) - 1, 1)
    return error * (_T_95[freedom - 1] if freedom <= len(_T_95) else 2.02)


def _num_even_clusters(sizes: np.ndarray) -> float:
    """Number of clusters of one size that would weigh as much as these (Kish, 1965)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise DatasetError(
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
        raise DatasetError(f"Expected a cluster for each of {len(numbers)} questions but got {len(clusters)}.")
    number_of: dict[Hashable, int] = {}
    member = np.array([number_of.setdefault(cluster, len(number_of)) for cluster in clusters], dtype=np.intp)
    return np.bincount(member, numbers), np.bincount(member).astype(np.float64)


def _resampled_means(totals: np.ndarray, sizes: np.ndarray, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    num_clusters = len(totals)
    step = max(1, _DRAWS_AT_ONCE // num_clusters)
    for start in range(0, num_resamples, step):
        drawn = generator.integers(num_clusters, size=(min(step, num_resamples - start), num_clusters))
        yield totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
