"""A written chain of thought drawn as text, one step a picture: a thought video without a video model.

That the pixels of a rendered chain can be the target of latents is from UniVLR (arXiv 2605.11856) and RoT (arXiv 2601.14750).

Axes: T frames, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError
from storm_hf.inputs.chain import split_steps
from storm_hf.settings import PositiveFloat, PositiveInt, check_values
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.thought_video.text_picture import draw_text, fitting_font, in_ascii


_MAX_MISSING = 0.05  # share of a chain that the font may lack: an emoji is left out, a chain in Chinese is rejected
_INAPPLICABLE = {
    "static": "pictures of text always differ, and small letters are gone at the size that it compares",
    "scene_break": "every picture shows another text",
    "first_frame": "text does not begin where the clip ends",
    "answer_free": "a chain is drawn as it is, whatever the prompt says, so the control would be the same video",
    "duplicate": "pictures of other words in lines of one length look the same to it",
}
_LEAKS = "the last step, which concludes with the answer, is kept on purpose; use `keeps_last_step: false`"


@dataclass(frozen=True, kw_only=True)
class RenderedChainGenerator:
    """Draws the chain of thought of a question, one step a picture.

    Args:
        frame_size (`tuple[int, int]`, *optional*, defaults to `(224, 392)`):
            Height and width of the pictures.
        max_steps (`int`, *optional*, defaults to `8`):
            Largest number of pictures. Neighbouring steps of a longer chain share one.
        frames_per_step (`int`, *optional*, defaults to `2`):
            Frames that show one picture. A vision tower that joins two frames makes one step of them.
        fps (`float`, *optional*, defaults to `2.0`):
            Frames shown per second.
        keeps_last_step (`bool`, *optional*, defaults to `True`):
            Whether the last step is drawn, which concludes with the answer.
        smallest_font_px (`int`, *optional*, defaults to `10`):
            Smallest font. A chain that does not fit in it is rejected.
        largest_font_px (`int`, *optional*, defaults to `24`):
            Largest font. All pictures of a chain have the largest one in which all of them fit.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    source: ClassVar[str] = "rendered_chain"
    name: ClassVar[str] = "storm_hf.thought_video.rendered_chain"
    license: ClassVar[str] = "as the row"

    frame_size: tuple[int, int] = (224, 392)
    max_steps: PositiveInt = 8
    frames_per_step: PositiveInt = 2
    fps: PositiveFloat = 2.0
    keeps_last_step: bool = True
    smallest_font_px: PositiveInt = 10
    largest_font_px: PositiveInt = 24

    def __post_init__(self) -> None:
        check_values(self)
        if self.largest_font_px < self.smallest_font_px:
            raise ConfigurationError(
                f"Expected largest_font_px of {self.smallest_font_px}, the smallest, or more but got {self.largest_font_px}."
            )
        least = 3 * self.smallest_font_px
        if any(size % 2 or size < least for size in self.frame_size):
            raise ConfigurationError(
                f"Expected frame_size as an even height and width of {least} or more, in which text of "
                f"{self.smallest_font_px} px can be read, but got {self.frame_size}."
            )

    @property
    def revision(self) -> str:
        """Version of the module, and whether the last step is left out."""
        return "1" if self.keeps_last_step else "1, without the last step"

    @property
    def inapplicable_gates(self) -> Mapping[str, str]:
        """Gates that make no sense for pictures of text, each with the reason."""
        leaks = dict.fromkeys(("giveaway", "stated_answer"), _LEAKS) if self.keeps_last_step else {}
        return {**_INAPPLICABLE, **leaks}

    def generate(self, annotation: Annotation, *, prompt: str = "", seed: int) -> ThoughtVideo | Rejected:
        """Draw the chain of thought.

        Args:
            annotation ([`Annotation`]):
                The question with its `chain_of_thought`.
            prompt (`str`, *optional*, defaults to `""`):
                Ignored: the chain is drawn as it is.
            seed (`int`):
                Recorded; nothing is drawn by lot.

        Returns:
            [`ThoughtVideo`] with its frames in memory, the licence of the row, and as its prompt the drawn text, one line a
            picture. [`Rejected`] where there is no chain, or it cannot be read in these pictures.
        """
        texts = self._texts(annotation)
        if isinstance(texts, Rejected):
            return texts
        font_px = fitting_font(texts, self.frame_size, self.smallest_font_px, self.largest_font_px)
        if font_px is None:
            return Rejected(
                f"too long: the chain of {annotation.id!r} does not fit into {len(texts)} pictures of {self.frame_size} "
                f"pixels, height and width, at {self.smallest_font_px} px; raise max_steps or frame_size"
            )
        pictures = np.stack([draw_text(text, self.frame_size, font_px) for text in texts])
        return ThoughtVideo(
            fps=self.fps,
            source=self.source,
            generator=self.name,
            generator_revision=self.revision,
            license=annotation.license,
            seed=seed,
            prompt="\n".join(texts),
            frames=pictures.repeat(self.frames_per_step, axis=0),
            seen_until_seconds=annotation.time_seconds,
        )

    def _texts(self, annotation: Annotation) -> list[str] | Rejected:
        """Text of each picture."""
        steps = split_steps(annotation.chain_of_thought)
        if not steps:
            return Rejected(f"no chain: {annotation.id!r} has no chain of thought")
        kept = steps if self.keeps_last_step else steps[:-1]
        if not kept:
            return Rejected(f"too short: the chain of {annotation.id!r} has one step, the last, which is left out")
        written = [in_ascii(step) for step in kept]
        missing = max(share for _, share in written)
        if missing > _MAX_MISSING or not all(text for text, _ in written):
            return Rejected(
                f"illegible: {missing:.0%} of a step of {annotation.id!r} has no letters in the font, which is Latin"
            )
        count = min(len(written), self.max_steps)
        bounds = [len(written) * number // count for number in range(count + 1)]
        return [
            " ".join(text for text, _ in written[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)
        ]
