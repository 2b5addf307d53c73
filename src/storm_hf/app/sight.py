"""How latents are shown: drawn by a decoder, named by the known thoughts nearest to them, or described in numbers.

Axes: K latent steps, N entries of the gallery, D hidden size, H height, W width, in pixels.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storm_hf.diagnostics.seeing import ThoughtDecoder
from storm_hf.evaluation.gallery import Gallery, describe_latents, unit_vectors


_NUM_NEIGHBOURS = 10
_NUM_NAMED = 2


@dataclass(frozen=True, eq=False)
class SeenStep:
    """One latent, as far as it can be seen.

    Args:
        norm (`float`):
            Euclidean length.
        cosine_to_previous (`float` or `None`):
            Cosine to the latent before it; None at the first step.
        resembles (`tuple[tuple[str, float], ...]`):
            States of the ten nearest known thoughts, most frequent first, each with its share of them. Empty without a
            gallery.
        picture (`np.ndarray` of shape `(height, width, 3)`, *optional*):
            The latent, drawn, `uint8`. None without a decoder.
    """

    norm: float
    cosine_to_previous: float | None
    resembles: tuple[tuple[str, float], ...] = ()
    picture: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Sight:
    """What a checkpoint has for looking at its latents.

    Args:
        decoder ([`~storm_hf.diagnostics.seeing.ThoughtDecoder`], *optional*):
            Draws them.
        gallery ([`~storm_hf.evaluation.gallery.Gallery`], *optional*):
            Known thoughts to compare them with.
    """

    decoder: ThoughtDecoder | None = None
    gallery: Gallery | None = None

    @classmethod
    def of(cls, checkpoint: Path) -> "Sight":
        """Read what lies in the folder of a checkpoint.

        Raises:
            CheckpointError: If it is damaged.
        """
        return cls(ThoughtDecoder.load(checkpoint), Gallery.load(checkpoint))

    def look(self, latents: np.ndarray) -> tuple[SeenStep, ...]:
        """Look at the latents of one rollout, of shape (K, D).

        Raises:
            CheckpointError: If the gallery belongs to another model.
            LatentShapeError: If the decoder does.
        """
        described = describe_latents(latents, self.gallery)  # refuses a gallery of another size
        pictures = [None] * len(latents) if self.decoder is None else self.decoder.draw(latents)
        names = [()] * len(latents) if self.gallery is None else nearest_states(latents, self.gallery)
        return tuple(
            SeenStep(step.norm, step.cosine_to_previous, resembles, picture)
            for step, resembles, picture in zip(described, names, pictures, strict=True)
        )


def nearest_states(latents: np.ndarray, gallery: Gallery) -> list[tuple[tuple[str, float], ...]]:
    """Name the states of the known thoughts nearest to each latent (K, D), with the share of each; a zero resembles none."""
    cosines = unit_vectors(latents) @ unit_vectors(gallery.latents).T  # (K, N)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :_NUM_NEIGHBOURS]
    return [
        _shares([gallery.states[index] for index in row]) if latent.any() else ()
        for latent, row in zip(latents, nearest, strict=True)
    ]


def _shares(states: list[str]) -> tuple[tuple[str, float], ...]:
    return tuple((state, count / len(states)) for state, count in Counter(states).most_common(_NUM_NAMED))
