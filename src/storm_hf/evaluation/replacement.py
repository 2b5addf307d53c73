"""Put something else in the place of a model's latents, to see whether the answer depends on them.

Axes: N questions, B batch, K latent steps, D hidden size.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from storm_hf.errors import LatentShapeError
from storm_hf.model.rollout_storm import LatentIntervention


Replacement = Literal["zero", "noise", "mean"]


def replace_latents(kind: Replacement, own: np.ndarray, seed: int = 0) -> np.ndarray:
    """Make latents without content out of those of one question.

    Args:
        kind (`str`):
            `zero`: zeros. `noise`: see [`noise_like`]. `mean`: the mean of the latents over the steps, so that all steps are
            fed the same.
        own (`np.ndarray` of shape `(num_latents, hidden_size)`):
            The latents of the rollout without an intervention.
        seed (`int`, *optional*, defaults to `0`):
            Draws the noise.

    Returns:
        `np.ndarray`: Of the shape of `own`.
    """
    if kind == "zero":
        return np.zeros_like(own)
    if kind == "mean":
        return np.broadcast_to(own.mean(axis=0), own.shape)
    return noise_like(own, seed=seed)


def noise_like(latents: np.ndarray, *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Draw normal numbers with the mean and the spread of some latents, and nothing else of them.

    Args:
        latents (`np.ndarray`):
            Of any shape.
        scale (`float`, *optional*, defaults to `1.0`):
            So many times their spread.
        seed (`int`, *optional*, defaults to `0`):
            Of the draws, which do not depend on the device.
    """
    draws = np.random.default_rng(seed).standard_normal(latents.shape)
    return (latents.mean() + scale * latents.std() * draws).astype(latents.dtype)


def feed(latents: np.ndarray, steps: Sequence[int] | None = None) -> Callable[[range], LatentIntervention]:
    """Feed given latents, in all steps or in some; the model rolls out the other steps itself.

    Args:
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            What is fed.
        steps (`Sequence[int]`, *optional*):
            Steps that are replaced, counted from 0. By default all.

    Returns:
        `Callable[[range], LatentIntervention]`: What `answer_questions(intervene=...)` takes.

    Raises:
        LatentShapeError: If `latents` has not three axes.
    """
    if latents.ndim != 3:
        raise LatentShapeError(
            f"Expected latents of shape (questions, steps, hidden size), got {latents.shape}. Stack the `latents` of answers."
        )
    replaced = set(range(latents.shape[1]) if steps is None else steps)

    def for_rows(span: range) -> LatentIntervention:
        given = torch.from_numpy(latents[span.start : span.stop].copy())  # (B, K, D)

        def intervene(step: int, latent: torch.Tensor) -> torch.Tensor:
            return given[:, step].to(latent) if step in replaced else latent

        return intervene

    return for_rows
