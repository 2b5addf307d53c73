"""Gallery of known thoughts saved beside a checkpoint, for nearest-neighbour lookup of a latent.

Axes: N questions, K latent steps, G gallery entries, D hidden size.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storm_hf.errors import CheckpointError


GALLERY_FILE = "thoughts/gallery.npz"


@dataclass(frozen=True)
class LatentStep:
    """One step of a rollout, in numbers.

    Args:
        norm (`float`):
            Euclidean length of the latent.
        cosine_to_previous (`float` or `None`):
            Cosine to the latent before it, -1 to 1; None at the first step.
        state (`str` or `None`):
            State of the nearest entry of the gallery; None without a gallery.
        similarity (`float` or `None`):
            Cosine to that entry.
    """

    norm: float
    cosine_to_previous: float | None
    state: str | None = None
    similarity: float | None = None


@dataclass(frozen=True, eq=False)
class Gallery:
    """Target latents of known states.

    Args:
        latents (`np.ndarray` of shape `(num_entries, hidden_size)`):
            In target space, `float32`.
        states (`Sequence[str]`):
            State of each entry.
    """

    latents: np.ndarray
    states: Sequence[str]

    @classmethod
    def load(cls, checkpoint: str | Path) -> "Gallery | None":
        """Read the gallery of a checkpoint; None if its folder holds none.

        Raises:
            CheckpointError: If the file is damaged.
        """
        path = Path(checkpoint) / GALLERY_FILE
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                gallery = cls(arrays["latents"].astype(np.float32), arrays["states"].tolist())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} is damaged: expected `latents` and `states` in it. Delete it.") from error
        if gallery.latents.ndim != 2 or len(gallery.latents) != len(gallery.states) or not gallery.states:
            raise CheckpointError(
                f"Expected latents of shape ({len(gallery.states)}, hidden size) for the states of {path} but got "
                f"{gallery.latents.shape}. Delete it."
            )
        return gallery

    def nearest(self, latents: np.ndarray) -> list[tuple[str, float]]:
        """Find the entry with the largest cosine to each latent (K, D): its state, and the cosine.

        Raises:
            CheckpointError: If the gallery is of another hidden size.
        """
        if latents.shape[1] != self.latents.shape[1]:
            raise CheckpointError(
                f"The gallery holds latents of size {self.latents.shape[1]} but this model thinks in size "
                f"{latents.shape[1]}: it belongs to another checkpoint. Delete {GALLERY_FILE}."
            )
        cosines = unit_vectors(latents) @ unit_vectors(self.latents).T  # (K, N)
        return [(self.states[index], float(row[index])) for row, index in zip(cosines, cosines.argmax(1), strict=True)]


def describe_latents(latents: np.ndarray, gallery: Gallery | None = None) -> list[LatentStep]:
    """Say how long each latent of a rollout is, how far it moved, and what it resembles.

    Args:
        latents (`np.ndarray` of shape `(num_latents, hidden_size)`):
            In target space.
        gallery ([`Gallery`], *optional*):
            Known states to compare with.
    """
    directions = unit_vectors(latents)
    cosines = [None, *(directions[1:] * directions[:-1]).sum(axis=1).tolist()]
    nearest = [(None, None)] * len(latents) if gallery is None else gallery.nearest(latents)
    norms = np.linalg.norm(latents, axis=1).tolist()
    return [
        LatentStep(norm, cosine, *found)
        for norm, cosine, found in zip(norms, cosines[: len(norms)], nearest, strict=True)
    ]


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Bring vectors of shape `(..., hidden_size)` to length one; zeros stay zeros."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


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
