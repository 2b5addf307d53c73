"""View of the latents: rendered by a decoder, labelled by their nearest known thoughts, or described in numbers.

Axes: K latent steps, N entries of the gallery, D hidden size, H height, W width, in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storm_hf.diagnostics.latent_decoder import ThoughtDecoder
from storm_hf.evaluation.thought_gallery import TEMPERATURE, Gallery, describe_latents, unit_vectors


_NUM_NAMED = 2
_SMALLEST_SHARE = 0.01  # of a second state that is named


@dataclass(frozen=True, eq=False)
class SeenStep:
    """One latent, as far as it can be seen.

    Args:
        norm (`float`):
            Euclidean length.
        cosine_to_previous (`float` or `None`):
            Cosine to the latent before it; None at the first step.
        resembles (`tuple[tuple[str, float], ...]`):
            State of the known thought nearest to it, and the runner-up, each with the share of the similarity that falls on
            known thoughts of that state. Empty without a gallery.
        picture (`np.ndarray` of shape `(height, width, 3)`, *optional*):
            The latent, drawn, `uint8`. None without a decoder.
    """

    norm: float
    cosine_to_previous: float | None
    resembles: tuple[tuple[str, float], ...] = ()
    picture: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LatentView:
    """Means that a checkpoint has to show its latents.

    Args:
        decoder ([`~storm_hf.diagnostics.latent_decoder.ThoughtDecoder`], *optional*):
            Draws them.
        gallery ([`~storm_hf.evaluation.thought_gallery.Gallery`], *optional*):
            Known thoughts to compare them with.
    """

    decoder: ThoughtDecoder | None = None
    gallery: Gallery | None = None

    @classmethod
    def of(cls, checkpoint: Path) -> "LatentView":
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
    """Name the state of the known thought nearest to each latent (K, D) and the runner-up; a zero resembles none.

    Shares are those of the demo's report: a softmax over the cosines to all known thoughts, summed by state.
    """
    cosines = unit_vectors(latents) @ unit_vectors(gallery.latents).T  # (K, N)
    return [_shares(row, gallery.states) if latent.any() else () for latent, row in zip(latents, cosines, strict=True)]


def _shares(cosines: np.ndarray, states: Sequence[str]) -> tuple[tuple[str, float], ...]:
    weights = np.exp((cosines - cosines.max()) / TEMPERATURE)
    share_of = dict.fromkeys([states[int(cosines.argmax())]], 0.0)  # the nearest comes first
    for state, weight in zip(states, weights / weights.sum(), strict=True):
        share_of[state] = share_of.get(state, 0.0) + float(weight)
    nearest, *others = share_of.items()
    runners_up = sorted((one for one in others if one[1] >= _SMALLEST_SHARE), key=lambda one: -one[1])
    return (nearest, *runners_up)[:_NUM_NAMED]
