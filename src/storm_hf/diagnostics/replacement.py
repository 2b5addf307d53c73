"""The token replacement test: answer again with other latents in the slots.

If answers do not change, the latents are decoration. Zeros, noise and means are inputs that the model never saw; another
clip's latents (a donor) and an edit in the middle of the rollout are the clean tests.

Axes: N questions, K latent steps, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from storm_hf.errors import InterventionError
from storm_hf.evaluation.replacement import feed, noise_like


__all__ = ["REPLACEMENTS", "choose_donors", "feed", "replacement"]

REPLACEMENTS = ("zero", "noise", "mean", "first", "swap")


def replacement(
    kind: str, latents: np.ndarray, *, donors: np.ndarray | None = None, scale: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Make what is fed instead of a model's own latents.

    Args:
        kind (`str`):
            `"zero"`; `"noise"`: normal numbers of the latents' own mean and spread; `"mean"`: the mean latent of each step over
            the questions; `"swap"`: the latents of each question's donor; `"first"`: the first latent in every step.
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own latents.
        donors (`np.ndarray` of shape `(num_questions,)`, *optional*):
            For `"swap"`: whose latents each question gets.
        scale (`float`, *optional*, defaults to `1.0`):
            Spread of the noise, in units of that of the latents.
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
        return noise_like(latents, scale=scale, seed=seed)
    if kind == "mean":
        return np.broadcast_to(latents.mean(axis=0), latents.shape)
    if kind == "first":
        return np.broadcast_to(latents[:, :1], latents.shape)
    if kind == "swap" and donors is not None:
        return latents[donors]
    raise InterventionError(f"`kind` must be one of {', '.join(REPLACEMENTS)} (swap with donors), got {kind!r}.")


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
