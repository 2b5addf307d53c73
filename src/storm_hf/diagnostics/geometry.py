"""Geometry of the latents: variance between clips, effective rank, drift of the rollout, and distance to their thoughts.

Latents that hardly depend on the clip cannot carry an answer, however well they are aligned.

Axes: N questions, K latent steps, D hidden size.
"""

from dataclasses import dataclass

import numpy as np

from storm_hf.evaluation.gallery import unit_vectors


_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class StepGeometry:
    """One latent step over many clips.

    Args:
        pair_cosine (`float`):
            Mean cosine between the latents of two clips, -1 to 1. Near 1 they hardly depend on the clip.
        effective_rank (`float`):
            Number of directions they fill, 1 to `min(num_questions - 1, hidden_size)`; see [`effective_rank`].
    """

    pair_cosine: float
    effective_rank: float


@dataclass(frozen=True)
class StepDrift:
    """Drift of the model's own rollout from the one that is fed the true thoughts.

    Args:
        direction (`float`):
            Mean cosine between the latent of the free rollout and the one after true thoughts; 1 is no drift.
        size (`float`):
            Mean ratio of their lengths, free over fed; 1 is no drift.
        cosine_free (`float`):
            Mean cosine of the free latent to its true thought.
        cosine_fed (`float`):
            Mean cosine of the latent after true thoughts to its true thought.
        cosine_others (`float`):
            Mean cosine of the free latent to the thoughts of other clips at this step: a cosine means nothing without it.
    """

    direction: float
    size: float
    cosine_free: float
    cosine_fed: float
    cosine_others: float


@dataclass(frozen=True)
class StepRetrieval:
    """Retrieval of a latent's own thought among those of all clips at the same step.

    Args:
        own (`float`):
            Share of latents whose nearest thought, by cosine, is their own, and not another clip's just like it.
        chance (`float`):
            Accuracy of guessing.
        gallery_size (`int`):
            Thoughts that are searched.
        state (`float`, *optional*):
            Share whose nearest thought of *another* clip shows the true state; None where states are not known.
        state_chance (`float`, *optional*):
            Accuracy of a random thought of another clip.
    """

    own: float
    chance: float
    gallery_size: int
    state: float | None = None
    state_chance: float | None = None


def describe_geometry(latents: np.ndarray) -> list[StepGeometry]:
    """Describe each step of latents (N, K, D); needs two questions."""
    return [StepGeometry(pair_cosine(step), effective_rank(step)) for step in np.moveaxis(latents, 1, 0)]


def pair_cosine(vectors: np.ndarray) -> float:
    """Mean cosine between two different vectors of some, (N, D)."""
    count = len(vectors)
    total = unit_vectors(vectors).astype(np.float64).sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def effective_rank(vectors: np.ndarray) -> float:
    """Number of directions that vectors (N, D) fill around their mean: e to the entropy of the singular values' shares.

    Roy and Vetterli, "The effective rank" (2007). 1 for vectors on a line, D for a ball; 1 too if all are the same.
    """
    sizes = np.linalg.svd(vectors.astype(np.float64) - vectors.mean(axis=0), compute_uv=False)
    if not sizes.sum():
        return 1.0
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def describe_drift(free: np.ndarray, fed: np.ndarray, targets: np.ndarray) -> list[StepDrift]:
    """Compare two rollouts step by step.

    Args:
        free (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            Latents of the model's own rollout.
        fed (`np.ndarray` of the same shape):
            Latents of the model at each step after the true thoughts of the steps before it.
        targets (`np.ndarray` of the same shape):
            The true thoughts.
    """
    size = np.linalg.norm(free, axis=-1) / np.maximum(np.linalg.norm(fed, axis=-1), 1e-12)  # (N, K)
    others = [_cosine_to_others(free[:, step], targets[:, step]) for step in range(free.shape[1])]
    measures = (_cosine(free, fed), size.mean(axis=0), _cosine(free, targets), _cosine(fed, targets), others)
    return [StepDrift(*map(float, step)) for step in zip(*measures, strict=True)]


def describe_retrieval(
    latents: np.ndarray, targets: np.ndarray, states: np.ndarray | None = None
) -> list[StepRetrieval]:
    """Look up each latent among the thoughts of its step; shapes (N, K, D), states (N, K)."""
    return [
        _retrieve(latents[:, step], targets[:, step], None if states is None else states[:, step])
        for step in range(latents.shape[1])
    ]


def _retrieve(latents: np.ndarray, targets: np.ndarray, states: np.ndarray | None) -> StepRetrieval:
    count = len(latents)
    gallery = unit_vectors(targets)
    is_own, is_state = [], []
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, count))
        cosine = unit_vectors(latents[rows]) @ gallery.T
        own = cosine[np.arange(len(rows)), rows].copy()
        cosine[np.arange(len(rows)), rows] = -np.inf
        nearest = cosine.argmax(axis=1)
        is_own.append(own > cosine.max(axis=1))
        if states is not None:
            is_state.append(states[nearest] == states[rows])
    found = float(np.concatenate(is_own).mean())
    if states is None:
        return StepRetrieval(found, 1 / count, count)
    _, counts = np.unique(states, return_counts=True)
    chance = float((counts * (counts - 1)).sum() / (count * (count - 1)))
    return StepRetrieval(found, 1 / count, count, float(np.concatenate(is_state).mean()), chance)


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean cosine over questions, one per step, (K,)."""
    return (unit_vectors(left) * unit_vectors(right)).sum(axis=-1).mean(axis=0)


def _cosine_to_others(latents: np.ndarray, targets: np.ndarray) -> float:
    left, right = unit_vectors(latents).astype(np.float64), unit_vectors(targets).astype(np.float64)
    count = len(left)
    return float((left.sum(axis=0) @ right.sum(axis=0) - (left * right).sum()) / (count * (count - 1)))
