"""One question about one video, with everything a simulator knows about it, and its chain of thought as a model would write it.

Axes: T frames of the clip, H height, W width.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class EpisodeText:
    """Text of an episode.

    Args:
        world (`str`):
            Name of the world, as `make_world` takes it.
        seed (`int`):
            With the world's knobs (and the depth, where it was asked for) it determines everything else.
        fps (`float`):
            Rate of clip and thought video. Two frames show one step.
        question (`str`):
            Ends in a question mark.
        options (`tuple[str, ...]`):
            The closed set of answers, one word each.
        answer (`str`):
            The correct one of them.
        depth (`int`):
            Number of state updates that the answer needs: swaps, steps, or the position asked for.
        states (`tuple[str, ...]`):
            State after each step, one word each: what each frame pair of the thought video shows.
        clip_caption (`str`):
            Caption of each frame pair of the clip. A perception warm-up learns to write it.
        thought_caption (`str`):
            Caption of each frame pair of the thought video.
        chain_of_thought (`str`):
            The reasoning in sentences.
        terse_chain (`str`):
            The reasoning in the fewest words a step needs.
    """

    world: str
    seed: int
    fps: float
    question: str
    options: tuple[str, ...]
    answer: str
    depth: int
    states: tuple[str, ...]
    clip_caption: str
    thought_caption: str
    chain_of_thought: str
    terse_chain: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode(EpisodeText):
    """An episode with its two videos.

    Args:
        clip (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Input clip of the model: RGB, `uint8`.
        thought (`np.ndarray` of shape `(2 * num_steps, height, width, 3)`):
            The simulator showing the reasoning: RGB, `uint8`. Training sees it, inference never does.
    """

    clip: np.ndarray
    thought: np.ndarray


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
