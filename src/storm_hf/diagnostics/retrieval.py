"""What a latent means: the thought frames whose targets it lies closest to.

Axes: N questions, K latent steps, G gallery entries, D hidden size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


TEMPERATURE = 0.1  # of the softmax over cosines


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The gallery entries nearest to some latents.

    Args:
        index (`np.ndarray` of shape `(..., num_neighbours)`):
            Positions in the gallery, the nearest first.
        similarity (`np.ndarray` of the same shape):
            Their cosines.
        state (`np.ndarray` of shape `(...,)`):
            State of the nearest.
        share (`np.ndarray` of shape `(...,)`):
            Share of the softmax over all cosines that falls on entries with that state.
    """

    index: np.ndarray
    similarity: np.ndarray
    state: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Gallery:
    """Thought frames that a latent can be compared with: their targets, what they show, and the pictures.

    Args:
        targets (`np.ndarray` of shape `(num_entries, hidden_size)`):
            Points of the target space.
        states (`np.ndarray` of shape `(num_entries,)`):
            What each frame shows, in a word.
        frames (`np.ndarray` of shape `(num_entries, height, width, 3)`):
            The pictures, `uint8`.
    """

    targets: np.ndarray
    states: np.ndarray
    frames: np.ndarray

    def nearest(self, latents: np.ndarray, num_neighbours: int = 3) -> Neighbours:
        """Find the entries nearest to latents of shape `(..., hidden_size)`, by cosine."""
        cosine = _unit(latents.astype(np.float32)) @ _unit(self.targets.astype(np.float32)).T  # (..., G)
        index = np.argsort(-cosine, axis=-1)[..., :num_neighbours]
        weight = np.exp((cosine - cosine.max(axis=-1, keepdims=True)) / TEMPERATURE)
        state = self.states[index[..., 0]]
        is_same = self.states == state[..., None]
        share = (weight * is_same).sum(axis=-1) / weight.sum(axis=-1)
        return Neighbours(index, np.take_along_axis(cosine, index, axis=-1), state, share)

    def chance(self, states: np.ndarray) -> float:
        """Share of `states` (N, K) that a random entry of the gallery shows."""
        names, counts = np.unique(self.states, return_counts=True)
        share = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
        return float(np.mean([share.get(state, 0.0) for state in states.ravel().tolist()]))

    def save(self, path: Path) -> None:
        """Write the gallery to one compressed file."""
        np.savez_compressed(path, targets=self.targets.astype(np.float16), states=self.states, frames=self.frames)

    @classmethod
    def load(cls, path: Path) -> "Gallery":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["targets"], stored["states"], stored["frames"])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
