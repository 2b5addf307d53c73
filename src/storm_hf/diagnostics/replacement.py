"""The token replacement test: answer again with other latents in the slots.

If answers do not change, the latents are decoration. Zeros, noise and means are inputs that the model never saw; another
clip's latents (a donor) and an edit in the middle of the rollout are the clean tests.

Axes: N questions, K latent steps, D hidden size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from storm_hf.errors import InterventionError, LatentShapeError
from storm_hf.model.rollout_storm import LatentIntervention


REPLACEMENTS = ("zero", "noise", "mean", "swap")


def replacement(kind: str, latents: np.ndarray, *, donors: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Make what is fed instead of a model's own latents.

    Args:
        kind (`str`):
            `"zero"`; `"noise"`: normal numbers of the latents' own mean and spread; `"mean"`: the mean latent of each step;
            `"swap"`: the latents of each question's donor.
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own latents.
        donors (`np.ndarray` of shape `(num_questions,)`, *optional*):
            For `"swap"`: whose latents each question gets.
        seed (`int`, *optional*, defaults to `0`):
            Of the noise.

    Returns:
        `np.ndarray`: Of the shape of `latents`.

    Raises:
        InterventionError: If the kind is unknown, or a swap has no donors.
    """
    if kind == "zero":
        return np.zeros_like(latents)
    if kind == "noise":
        draws = np.random.default_rng(seed).standard_normal(latents.shape)
        return (latents.mean() + latents.std() * draws).astype(latents.dtype)
    if kind == "mean":
        return np.broadcast_to(latents.mean(axis=0), latents.shape)
    if kind == "swap" and donors is not None:
        return latents[donors]
    raise InterventionError(f"`kind` must be one of {', '.join(REPLACEMENTS)} (swap with donors), got {kind!r}.")


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
        given = torch.from_numpy(np.ascontiguousarray(latents[span.start : span.stop]))  # (B, K, D)

        def intervene(step: int, latent: torch.Tensor) -> torch.Tensor:
            return given[:, step].to(latent) if step in replaced else latent

        return intervene

    return for_rows


def choose_donors(questions: Sequence[str], answers: Sequence[Any], seed: int = 0) -> np.ndarray:
    """Choose for each question another one of the same wording and another answer, so that following it can be seen.

    Args:
        questions (`Sequence[str]`):
            Their wording.
        answers (`Sequence`):
            The right answers.
        seed (`int`, *optional*, defaults to `0`):
            Of the choice.

    Returns:
        `np.ndarray` of shape `(num_questions,)`: Position of the donor; its own position where there is none.
    """
    generator = np.random.default_rng(seed)
    wording, answer = np.asarray(questions), np.asarray(answers)
    donors = np.arange(len(answer))
    for index in range(len(answer)):
        others = np.flatnonzero((wording == wording[index]) & (answer != answer[index]))
        if len(others):
            donors[index] = generator.choice(others)
    return donors
