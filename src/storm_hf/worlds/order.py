"""`order`: shapes that appear one after the other, and the one at a given place.

The thought video is a recap without the pauses: shape after shape in the order in which they came, whatever the
question. Answering needs no state that is updated step by step, so this world is a control: latents should not hurt.

Axes: T frames, H height, W width, in pixels before enlargement.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from storm_hf.inputs.wording import NUMBER_WORDS, ORDINAL_WORDS, number_pairs, wording
from storm_hf.worlds.episode import EpisodeText, SpokenChain, fill_ways
from storm_hf.worlds.render import CELL_PX, PALE, PALETTE, Colour, canvas, shape_masks, stamp
from storm_hf.worlds.world import DemoSettings, Training, Words, World, check_knob, check_num_steps


_MASKS = shape_masks()
_SHAPES = tuple(_MASKS)

_NUM_PLACES = 4
_MARGIN_TOP, _MARGIN_LEFT = 4, 3
_WORDINGS = (
    "Which shape was number {number}?",
    "What is the {ordinal} shape that appears?",
    "Several shapes show up one after the other. Which one comes {ordinal}?",
    "Tell me the shape in position {number} of the sequence.",
    "Count the shapes as they appear and name number {number}.",
    "Looking at the order of appearance, what stands at place {number}?",
    "Which figure is shown as the {ordinal} one in this video?",
    "If you list all shapes in the order of the video, what is entry {number}?",
    "Please say what kind of shape was the {ordinal} to be displayed.",
    "Ignore the pauses and the colours. What was the {ordinal} form on the screen?",
    "Name the object that was presented {ordinal}.",
    "Of everything that flashes up, which shape has the rank {number}?",
    "Remember the series of shapes. What was its {ordinal} member?",
    "When the {ordinal} shape came into view, what was it?",
    "Which shape would carry the label {number} if they were numbered as they arrive?",
)
_SENTENCES = (
    "The shape was a {answer}.",
    "It is the {answer}.",
    "Number {number} was a {answer}.",
    "The {ordinal} shape is a {answer}.",
)
_APPEARED = (
    "number {number} is a {shape}",
    "the {ordinal} shape is a {shape}",
    "a {shape} comes {ordinal}",
)
_STAYED = (
    "no further shape appears, so the last one is still the {shape}",
    "after that nothing new is shown, and the last shape remains the {shape}",
)
_ENDS = ("; the {ordinal} one was the {answer}", "; number {number} of them is the {answer}")


@dataclass(frozen=True)
class _Appearance:
    """A shape that is shown for one step."""

    step: int
    shape: str
    colour: str
    place: int


@dataclass(frozen=True)
class _OrderPlan:
    """The facts of an episode: what appears, in order, and which of them is asked for (from 1)."""

    appearances: tuple[_Appearance, ...]
    depth: int


@dataclass(frozen=True)
class Order(World[_OrderPlan]):
    """Shapes that appear in some order.

    Args:
        num_shapes (`int`, *optional*, defaults to 5):
            Shapes that appear, all different, 1 to 6.
        num_steps (`int`, *optional*, defaults to 6):
            Steps K of the clip, those without a shape included.
    """

    name: ClassVar[str] = "order"
    demo: ClassVar[DemoSettings] = DemoSettings(
        task="Five shapes appear one after the other. Which one came third? This task needs no state that changes step by "
        "step, so a direct answer can do it: a control.",
        depth_unit="places",
        knobs={"num_steps": 6},
        test_depths={1: 64, 2: 64, 3: 64, 4: 256, 5: 256},
        deep=(4, 5),
        whitening_rank=32,
        bottleneck_share=0.5,  # the clip answers directly: without it, one run of three used its latents
        trainings={
            "base": Training(220, 2e-3),
            "align": Training(600),
            "answer": Training(100, 1e-4),
            "direct": Training(700),
            "chain_of_thought": Training(700),
            "terse_chain": Training(700),
        },
    )

    question_wordings: ClassVar[tuple[str, ...]] = _WORDINGS
    answer_sentences: ClassVar[tuple[str, ...]] = _SENTENCES

    num_shapes: int = 5
    num_steps: int = 6

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_num_steps(self.name, self.num_steps)
        check_knob(self.name, "num_shapes", self.num_shapes, 1, min(len(_SHAPES), self.num_steps))

    @property
    def options(self) -> tuple[str, ...]:
        """Every shape there is, those that do not appear too."""
        return _SHAPES

    @property
    def state_names(self) -> tuple[str, ...]:
        """Shape that the recap shows."""
        return _SHAPES

    @property
    def depths(self) -> range:
        """Positions that can be asked for."""
        return range(1, self.num_shapes + 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """One row of cells, a cell for each place."""
        return CELL_PX, CELL_PX * _NUM_PLACES

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that a text of this world can use, sorted."""
        return wording(self.options, _WORDINGS[0].format(**_blanks(1)), "shape none step number is", *PALETTE)

    def _read_frame(self, frame: np.ndarray) -> str:
        """Compare with the recap of each shape."""
        return min(_SHAPES, key=lambda shape: float(((frame - _recap_frame(shape)) ** 2).mean()))

    def _draw_plan(self, generator: np.random.Generator, depth: int | None) -> _OrderPlan:
        drawn_depth = int(generator.integers(1, self.num_shapes + 1))
        steps = sorted(generator.permutation(self.num_steps)[: self.num_shapes].tolist())
        shapes = generator.permutation(_SHAPES)[: self.num_shapes].tolist()
        colours = generator.choice(list(PALETTE), self.num_shapes).tolist()
        places = generator.integers(_NUM_PLACES, size=self.num_shapes).tolist()
        appearances = tuple(map(_Appearance, steps, shapes, colours, places))
        return _OrderPlan(appearances, drawn_depth if depth is None else depth)

    def _start(self, plan: _OrderPlan) -> str:
        return plan.appearances[0].shape

    def _advance(self, plan: _OrderPlan, step: int, state: str) -> str:
        """Give the next shape of the recap, which does not depend on the one before; the last one stays."""
        return plan.appearances[min(step, self.num_shapes - 1)].shape

    def _answer(self, plan: _OrderPlan, states: list[str]) -> str:
        return states[plan.depth - 1]

    def _words(self, plan: _OrderPlan, states: list[str]) -> Words:
        shown = {appearance.step: f"{appearance.colour} {appearance.shape}" for appearance in plan.appearances}
        numbers = [NUMBER_WORDS[min(step + 1, self.num_shapes)] for step in range(self.num_steps)]
        reasons = (f"number {number} is {state}" for number, state in zip(numbers, states, strict=True))
        return Words(
            question=_WORDINGS[0].format(**_blanks(plan.depth)),
            depth=plan.depth,
            clip_caption=number_pairs([shown.get(step, "none none") for step in range(self.num_steps)], first=1),
            thought_caption=number_pairs([f"shape {state}" for state in states], first=1),
            chain_of_thought=f"step {number_pairs(reasons, first=1).replace(' . ', ' . step ')}",
            terse_chain=" ".join(states),
        )

    def _say_chain(self, plan: _OrderPlan, states: list[str]) -> SpokenChain:
        appeared = (
            fill_ways(_APPEARED, shape=shape, **_blanks(number))
            for number, shape in enumerate(states[: self.num_shapes], start=1)
        )
        stayed = (fill_ways(_STAYED, shape=shape) for shape in states[self.num_shapes :])
        ends = fill_ways(_ENDS, answer=self._answer(plan, states), **_blanks(plan.depth))
        return SpokenChain(steps=(*appeared, *stayed), ends=ends)

    def _blanks(self, episode: EpisodeText) -> dict[str, str]:
        return _blanks(episode.depth)

    def _draw_clip(self, plan: _OrderPlan) -> np.ndarray:
        frames = [canvas(1, _NUM_PLACES) for _ in range(self.num_steps)]
        for appearance in plan.appearances:
            _draw_shape(frames[appearance.step], appearance.place, appearance.shape, PALETTE[appearance.colour])
        return np.stack(frames).repeat(2, axis=0)

    def _draw_thought(self, plan: _OrderPlan) -> np.ndarray:
        return np.stack([_recap_frame(state) for state in self._states(plan)]).repeat(2, axis=0)  # (T, H, W, 3)


def _blanks(depth: int) -> dict[str, str]:
    return {"number": NUMBER_WORDS[depth], "ordinal": ORDINAL_WORDS[depth]}


def _recap_frame(shape: str) -> np.ndarray:
    frame = canvas(1, _NUM_PLACES)
    for place in range(_NUM_PLACES):
        _draw_shape(frame, place, shape, PALE)
    return frame


def _draw_shape(frame: np.ndarray, place: int, shape: str, colour: Colour) -> None:
    stamp(frame, _MARGIN_TOP, CELL_PX * place + _MARGIN_LEFT, _MASKS[shape], colour)
