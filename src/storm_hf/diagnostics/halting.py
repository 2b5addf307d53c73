"""Thoughts that end by themselves: how long they are, how right, and whether they are longer where there is more to think."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import Answer, accuracy
from storm_hf.inputs.prompts import Row


@dataclass(frozen=True)
class HaltedThoughts:
    """Lengths of the thoughts of a model that halts.

    Args:
        accuracy (`float`):
            Of the answers after them.
        mean_latents (`float`):
            Mean number of latents.
        counts (`list[int]`):
            Number of questions with one latent, with two, and so on.
        depth_correlation (`float`, *optional*):
            Spearman's rank correlation of the number of latents with the true number of steps, `depth` of a row. By chance it is 0; None
            where rows do not say it, or one of the two is always the same.
    """

    accuracy: float
    mean_latents: float
    counts: list[int]
    depth_correlation: float | None


def describe_halting(answers: Sequence[Answer], rows: Sequence[Row]) -> HaltedThoughts:
    """Describe the thoughts of answers that were given with `halting`.

    Args:
        answers (`Sequence[Answer]`):
            Answers that know how many latents they used.
        rows (`Sequence`):
            Their questions.

    Raises:
        ConfigurationError: If there are none, or they do not know it.
    """
    used = np.array([answer.num_latents for answer in answers if answer.num_latents is not None])
    if not len(used) or len(used) < len(answers):
        raise ConfigurationError(
            "Expected answers of a model that halts, got some without a number of latents. Ask with `halting=True`."
        )
    has_depths = all(row.get("depth") is not None for row in rows)
    depths = np.array([int(row["depth"]) for row in rows]) if has_depths else np.zeros(len(rows))
    return HaltedThoughts(
        accuracy=accuracy(answers, rows),
        mean_latents=float(used.mean()),
        counts=np.bincount(used)[1:].tolist(),
        depth_correlation=rank_correlation(used, depths),
    )


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation of two sequences of the same length; equal values share their mean rank.

    Args:
        first (`np.ndarray` of shape `(num_values,)`):
            Numbers.
        second (`np.ndarray` of shape `(num_values,)`):
            Numbers.

    Returns:
        `float` or `None`: None where all values of one of them are equal.
    """
    ranks = [_ranks(first), _ranks(second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(np.stack(ranks))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]
