"""Linear probes: can the state of the world be read off a latent by a linear map?

A probe that reads a state shows that the latent holds it, not that the answer uses it; the interventions show that.

Axes: N questions, K latent steps, D hidden size, C states.
"""

from dataclasses import dataclass

import numpy as np
import torch

from storm_hf.evaluation.bootstrap import Interval, share_interval
from storm_hf.target_trajectory.ridge import ridge_weights


_TRAIN_SHARE = 0.7
_RIDGE = 1e-2  # per question, on latents of unit variance


@dataclass(frozen=True)
class StepProbe:
    """Accuracy of a linear probe on the latents of one step.

    Args:
        accuracy ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share of held-out clips whose state it names.
        chance (`float`):
            Accuracy on the held-out clips of the most frequent state of the fitted ones.
        num_held_out (`int`):
            Clips that it was not fitted on.
    """

    accuracy: Interval
    chance: float
    num_held_out: int


def probe_states(latents: np.ndarray, states: np.ndarray, clips: list[str], seed: int = 0) -> list[StepProbe]:
    """Fit a ridge regression from the latents of each step to its state, and test it on clips that it has not seen.

    Args:
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own latents.
        states (`np.ndarray` of shape `(num_questions, num_latents)`):
            State after each step.
        clips (`list[str]`):
            Clip of each question; all questions about a clip lie on the same side.
        seed (`int`, *optional*, defaults to `0`):
            Of the split.

    Returns:
        `list[StepProbe]`: One per step. Empty if there are fewer than ten clips.
    """
    names = sorted(set(clips))
    if len(names) < 10:
        return []
    drawn = np.random.default_rng(seed).permutation(len(names))[: int(_TRAIN_SHARE * len(names))]
    fitted_clips = {names[index] for index in drawn}
    is_fitted = np.array([clip in fitted_clips for clip in clips])
    held_out = [clip for clip in clips if clip not in fitted_clips]
    return [_probe(latents[:, step], states[:, step], is_fitted, held_out) for step in range(latents.shape[1])]


def _probe(latents: np.ndarray, states: np.ndarray, is_fitted: np.ndarray, held_out: list[str]) -> StepProbe:
    names, codes = np.unique(states, return_inverse=True)
    inputs = torch.from_numpy(latents).double()
    inputs = inputs - inputs[is_fitted].mean(dim=0)
    inputs = inputs / inputs[is_fitted].pow(2).mean(dim=0).sqrt().clamp(min=1e-6)
    labels = torch.nn.functional.one_hot(torch.from_numpy(codes), len(names)).double()  # (N, C)
    frequency = labels[is_fitted].mean(dim=0)
    scores = inputs[~is_fitted] @ ridge_weights(inputs[is_fitted], labels[is_fitted] - frequency, _RIDGE) + frequency
    truth = torch.from_numpy(codes[~is_fitted])
    is_right = (scores.argmax(dim=1) == truth).numpy()
    chance = float((truth == frequency.argmax()).double().mean())
    return StepProbe(share_interval(is_right, clusters=held_out, num_resamples=2000), chance, len(truth))
