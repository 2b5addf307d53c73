"""Chain of thought in sentences as a language model would write it: one sentence a step, worded in several ways."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SpokenChain:
    """Wordings of a chain of thought. All say the same, and one of each is drawn.

    Args:
        steps (`tuple[tuple[str, ...], ...]`):
            For each step, ways to say what it changes and the state after it, without capital and full stop.
        starts (`tuple[str, ...]`, *optional*):
            Ways to begin the first sentence with the state before it and a semicolon. Left out where there is none.
        ends (`tuple[str, ...]`):
            Ways to end the last sentence with what leads to the answer.
    """

    steps: tuple[tuple[str, ...], ...]
    ends: tuple[str, ...]
    starts: tuple[str, ...] = ()

    def draw(self, generator: np.random.Generator) -> str:
        """Write the chain, in one of the ways for each of its parts."""
        sentences = [str(generator.choice(ways)) for ways in self.steps]
        if self.starts:
            sentences[0] = f"{generator.choice(self.starts)} {sentences[0]}"
        sentences[-1] += str(generator.choice(self.ends))
        return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def fill_ways(ways: tuple[str, ...], **blanks: str) -> tuple[str, ...]:
    """Fill the blanks of some wordings with the same words."""
    return tuple(way.format(**blanks) for way in ways)
