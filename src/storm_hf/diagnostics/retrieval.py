"""Retrieval of the thought frames whose targets are nearest to a latent.

Axes: N questions, K latent steps, G gallery entries, D hidden size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storm_hf.evaluation.gallery import GALLERY_FILE, Gallery, unit_vectors


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
class ThoughtGallery(Gallery):
    """A gallery with its pictures. `storm ask --show` reads the same file.

    Args:
        frames (`np.ndarray` of shape `(num_entries, height, width, 3)`):
            The thought frame of each entry, `uint8`.
    """

    frames: np.ndarray

    def neighbours(self, latents: np.ndarray, num_neighbours: int = 3) -> Neighbours:
        """Find the entries nearest to latents of shape `(..., hidden_size)`, by cosine."""
        cosine = unit_vectors(latents) @ unit_vectors(self.latents).T  # (..., G)
        states = np.asarray(self.states)
        index = np.argsort(-cosine, axis=-1)[..., :num_neighbours]
        weight = np.exp((cosine - cosine.max(axis=-1, keepdims=True)) / TEMPERATURE)
        state = np.asarray(states[index[..., 0]])  # an array for a single latent too
        is_same = states == state[..., None]
        share = (weight * is_same).sum(axis=-1) / weight.sum(axis=-1)
        return Neighbours(index, np.take_along_axis(cosine, index, axis=-1), state, share)

    def chance(self, states: np.ndarray) -> float:
        """Probability that a random entry of the gallery shows the state it is compared with; states (N, K)."""
        names, counts = np.unique(np.asarray(self.states), return_counts=True)
        share = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
        return float(np.mean([share.get(state, 0.0) for state in states.ravel().tolist()]))

    def save(self, checkpoint: Path) -> None:
        """Write the gallery into the folder of a checkpoint."""
        path = checkpoint / GALLERY_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path, latents=self.latents.astype(np.float16), states=np.asarray(self.states), frames=self.frames
        )

    @classmethod
    def open(cls, checkpoint: Path) -> "ThoughtGallery":
        """Read what `save` wrote."""
        with np.load(checkpoint / GALLERY_FILE, allow_pickle=False) as stored:
            return cls(stored["latents"].astype(np.float32), stored["states"].tolist(), stored["frames"])
