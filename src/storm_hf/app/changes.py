"""What a user may put in the place of a model's latents, or of its clip.

Axes: K latent steps, D hidden size.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from storm_hf.errors import InterventionError
from storm_hf.evaluation.replacement import replace_latents


Content = Literal["zero", "noise", "mean", "own", "other", "alone"]
CONTENTS: tuple[Content, ...] = get_args(Content)


@dataclass(frozen=True)
class Change:
    """One way of changing what a model thinks.

    Args:
        content (`str`):
            What is fed: `zero`, `noise`, the `mean` over the steps, a latent of its `own`, or one of an`other` clip.
            `alone` changes no latent, and takes the clip from the answer: it is written from the latents alone.
        step (`int`, *optional*):
            The step that is replaced, counted from 0; the model thinks on from there. All steps by default.
        source (`int`, *optional*):
            The step that the new latent comes from, counted from 0. By default each step gets that of the same number.
    """

    content: Content
    step: int | None = None
    source: int | None = None

    def steps(self, num_latents: int) -> list[int]:
        """The steps that are replaced."""
        if self.content == "alone":
            return []
        return list(range(num_latents)) if self.step is None else [self.step]

    def latents(self, own: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
        """Make what is fed.

        Args:
            own (`np.ndarray` of shape `(num_latents, hidden_size)`):
                What the model thought by itself.
            other (`np.ndarray` of the same shape, *optional*):
                What it thought about the other clip.

        Returns:
            `np.ndarray`: Of the shape of `own`; the steps that are not replaced are not read.

        Raises:
            InterventionError: If there is no such content or step, it needs another clip, or it changes nothing.
        """
        self._check(len(own), other)
        given = self._content(own, other)  # (K, D)
        return given if self.source is None else np.broadcast_to(given[self.source], given.shape)

    def _content(self, own: np.ndarray, other: np.ndarray | None) -> np.ndarray:
        if self.content in ("zero", "noise", "mean"):
            return replace_latents(self.content, own)
        return other if self.content == "other" and other is not None else own

    def _check(self, num_latents: int, other: np.ndarray | None) -> None:
        if self.content not in CONTENTS:
            raise InterventionError(f"Expected a content of {', '.join(CONTENTS)} but got {self.content!r}.")
        for step in (self.step, self.source):
            if step is not None and not 0 <= step < num_latents:
                raise InterventionError(f"Expected a step from 1 to {num_latents} but got {step + 1}.")
        if self.content == "other" and other is None:
            raise InterventionError("Expected another clip to take latents from. Drop one, or choose an example.")
        if self.content == "own" and self.source in (None, self.step):
            raise InterventionError("A step's own latent changes nothing there. Choose another step to take it from.")
