"""`shuffle`: a ball under one of some cups that change places, and its cup at the end.

The cups stand on coloured pads and the colours are the answers. The clip shows the ball, then one step per frame pair:
two cups swap (each wears a sticker of the colour it moves to) or nothing happens. The thought video is the same with
cups of glass. To know the end one must update the state at every swap: there is no shortcut.

Axes: T frames, H height, W width, in pixels before enlargement.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np

from storm_hf.inputs.wording import NUMBER_WORDS, number_pairs, wording
from storm_hf.worlds.episode import SpokenChain, fill_ways
from storm_hf.worlds.render import BACKGROUND, CELL_PX, GREY, ORANGE, PALETTE, canvas, distance, fill, open_box
from storm_hf.worlds.world import DemoSettings, Training, Words, World, check_knob, check_num_steps


_Swap = tuple[int, int]  # left cup, right cup

_WORDINGS = (
    "Which cup holds the ball at the end?",
    "Under which cup is the ball when everything has stopped moving?",
    "After all the swaps, where is the ball?",
    "Tell me the colour of the pad that the ball ends up on.",
    "Keep an eye on the ball: what colour is the pad below it in the last frame?",
    "Where do I have to look for the ball once the cups stand still?",
    "The cups may trade places. Which one hides the ball now?",
    "Name the pad on which the hidden ball comes to rest.",
    "A ball was hidden and the cups were moved around. Which colour marks its final place?",
    "Please follow the ball through the video and say where it finishes.",
    "Which cup should be lifted to find the ball after the shuffling is over?",
    "What is the final location of the ball?",
    "If all cups were taken away now, on which colour would the ball be seen?",
    "The game is over. What colour has the pad that carries the ball?",
    "Say which of the cups covers the ball after the last move.",
)
_SENTENCES = (
    "The ball is under the {answer} cup.",
    "It ends up on the {answer} pad.",
    "The {answer} cup holds the ball.",
    "The ball is on {answer} now.",
)
_STARTS = ("the ball starts on {start};", "at first the ball is under the {start} cup;")
_CARRIED = (
    "in step {step}, the {left} and the {right} cup change places, so the ball moves from {before} to {after}",
    "in step {step}, {left} and {right} trade places, which takes the ball to {after}",
    "step {step} swaps the {left} cup with the {right} one, carrying the ball to {after}",
)
_PASSED = (
    "in step {step}, the {left} and the {right} cup change places, so the ball stays on {after}",
    "in step {step}, {left} and {right} trade places, which leaves the ball on {after}",
    "step {step} swaps the {left} cup with the {right} one, leaving the ball on {after}",
)
_RESTED = (
    "in step {step}, all cups stay where they are, so the ball stays on {after}",
    "in step {step}, nothing is moved, which leaves the ball on {after}",
    "step {step} changes nothing, and the ball remains on {after}",
)
_ENDS = (", its final place", ", where it ends")
_CUP_TOP, _CUP_HEIGHT, _CUP_WIDTH = 4, 8, 10
_PAD_TOP, _LIFT, _SHIFT = 12, 2, 2
_BALL_TOP, _BALL_LEFT, _BALL_HEIGHT, _BALL_WIDTH = _CUP_TOP + 3, 5, 5, 6


@dataclass(frozen=True)
class _ShufflePlan:
    """The facts of an episode: the cup that holds the ball first, and what swaps at each step, if anything."""

    start: int
    swaps: tuple[_Swap | None, ...]

    @property
    def depth(self) -> int:
        """Number of swaps."""
        return sum(swap is not None for swap in self.swaps)


@dataclass(frozen=True)
class Shuffle(World[_ShufflePlan]):
    """Cups that swap.

    Args:
        num_cups (`int`, *optional*, defaults to 4):
            2 to 5. Chance is one in this many.
        num_steps (`int`, *optional*, defaults to 6):
            Steps K after the ball was shown, idle ones included.
        min_swaps (`int`, *optional*, defaults to 3):
            Fewest steps that are swaps, unless a depth is asked for.
        max_swaps (`int`, *optional*, defaults to 6):
            Most steps that are swaps; every number between is drawn equally often.
        rests_last (`int`, *optional*, defaults to 0):
            1 puts the steps in which nothing happens after all swaps: what there is to think then ends with the last swap. With 0 they
            lie anywhere.
    """

    name: ClassVar[str] = "shuffle"
    demo: ClassVar[DemoSettings] = DemoSettings(
        task="A ball is put under one of four cups, then cups swap places in some of six steps. Which cup holds the ball "
        "at the end?",
        depth_unit="swaps",
        knobs={"num_steps": 6, "min_swaps": 0, "max_swaps": 6},
        test_depths={0: 64, 1: 64, 2: 64, 3: 64, 4: 64, 5: 256, 6: 256},
        deep=(5, 6),
        whitening_rank=16,
        trainings={
            "base": Training(220, 2e-3),
            "align": Training(300),
            "answer": Training(100, 1e-4),
            "direct": Training(600),
            "chain_of_thought": Training(400),
            "terse_chain": Training(400),
        },
    )

    question_wordings: ClassVar[tuple[str, ...]] = _WORDINGS
    answer_sentences: ClassVar[tuple[str, ...]] = _SENTENCES

    num_cups: int = 4
    num_steps: int = 6
    min_swaps: int = 3
    max_swaps: int = 6
    rests_last: int = 0

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_num_steps(self.name, self.num_steps)
        check_knob(self.name, "num_cups", self.num_cups, 2, len(PALETTE))
        check_knob(self.name, "max_swaps", self.max_swaps, 0, self.num_steps)
        check_knob(self.name, "min_swaps", self.min_swaps, 0, self.max_swaps)
        check_knob(self.name, "rests_last", self.rests_last, 0, 1)

    @property
    def options(self) -> tuple[str, ...]:
        """Colours of the pads, from left to right."""
        return tuple(PALETTE)[: self.num_cups]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Colour of the pad that the ball is on."""
        return self.options

    @property
    def depths(self) -> range:
        """Numbers of swaps."""
        return range(self.num_steps + 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """One row of cells, a cell for each cup."""
        return CELL_PX, CELL_PX * self.num_cups

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that a text of this world can use, sorted."""
        return wording(self.options, _WORDINGS[0], "ball swap none step at")

    def _read_frame(self, frame: np.ndarray) -> str:
        """Look for the ball where it lies under each cup."""
        boxes = [(_BALL_TOP, CELL_PX * cup + _BALL_LEFT, _BALL_HEIGHT, _BALL_WIDTH) for cup in range(self.num_cups)]
        return self.options[int(np.argmin([distance(frame, *box, ORANGE) for box in boxes]))]

    def _draw_plan(self, generator: np.random.Generator, depth: int | None) -> _ShufflePlan:
        drawn_depth = int(generator.integers(self.min_swaps, self.max_swaps + 1))
        start = int(generator.integers(self.num_cups))
        order = generator.permutation(self.num_steps)
        if self.rests_last:
            order.sort()
        pairs = [sorted(generator.permutation(self.num_cups)[:2].tolist()) for _ in range(self.num_steps)]
        active = set(order[: drawn_depth if depth is None else depth].tolist())
        swaps = tuple((left, right) if step in active else None for step, (left, right) in enumerate(pairs))
        return _ShufflePlan(start, swaps)

    def _start(self, plan: _ShufflePlan) -> str:
        return self.options[plan.start]

    def _advance(self, plan: _ShufflePlan, step: int, state: str) -> str:
        swap = plan.swaps[step]
        cup = self.options.index(state)
        if swap is None or cup not in swap:
            return state
        return self.options[swap[1] if cup == swap[0] else swap[0]]

    def _answer(self, plan: _ShufflePlan, states: list[str]) -> str:
        return states[-1]

    def _words(self, plan: _ShufflePlan, states: list[str]) -> Words:
        moves = [f"swap {self._swap_words(swap)}" for swap in plan.swaps]
        balls = [f"ball {state}" for state in states]
        reasons = (f"{move} , ball at {state}" for move, state in zip(moves, states, strict=True))
        return Words(
            question=_WORDINGS[0],
            depth=plan.depth,
            clip_caption=number_pairs([f"ball {self._start(plan)}", *moves], first=0),
            thought_caption=number_pairs(balls, first=1),
            chain_of_thought=f"step {number_pairs(reasons, first=1).replace(' . ', ' . step ')}",
            terse_chain=" ".join(states),
        )

    def _say_chain(self, plan: _ShufflePlan, states: list[str]) -> SpokenChain:
        start = self._start(plan)
        moves = zip(plan.swaps, pairwise([start, *states]), strict=True)
        steps = (
            self._say_step(NUMBER_WORDS[step], swap, *places) for step, (swap, places) in enumerate(moves, start=1)
        )
        return SpokenChain(starts=fill_ways(_STARTS, start=start), steps=tuple(steps), ends=_ENDS)

    def _say_step(self, step: str, swap: _Swap | None, before: str, after: str) -> tuple[str, ...]:
        if swap is None:
            return fill_ways(_RESTED, step=step, after=after)
        left, right = (self.options[cup] for cup in swap)
        ways = _PASSED if before == after else _CARRIED
        return fill_ways(ways, step=step, left=left, right=right, before=before, after=after)

    def _swap_words(self, swap: _Swap | None) -> str:
        return "none none" if swap is None else " ".join(self.options[cup] for cup in swap)

    def _draw_clip(self, plan: _ShufflePlan) -> np.ndarray:
        shown = self._pads.copy()
        for cup in range(self.num_cups):
            if cup != plan.start:
                _draw_cup(shown, cup)
        fill(shown, 2, CELL_PX * plan.start + 3, 3, _CUP_WIDTH, GREY)  # the lifted cup
        _draw_ball(shown, plan.start)
        return np.stack([shown, shown, *(frame for swap in plan.swaps for frame in self._step_frames(swap))])

    def _draw_thought(self, plan: _ShufflePlan) -> np.ndarray:
        frames = []
        places = [self.options.index(state) for state in [self._start(plan), *self._states(plan)]]
        for swap, (before, after) in zip(plan.swaps, pairwise(places), strict=True):
            first, second = self._step_frames(swap, transparent=True)
            _draw_ball(first, before)
            _draw_ball(second, after)
            frames += [first, second]
        return np.stack(frames)  # (T, H, W, 3)

    def _step_frames(self, swap: _Swap | None, transparent: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Draw the two frames of a step: the left cup of a swap is lifted, and in the second frame both have moved."""
        first, second = self._pads.copy(), self._pads.copy()
        for frame, shift in ((first, 0), (second, _SHIFT)):
            for cup in range(self.num_cups):
                if swap is None or cup not in swap:
                    _draw_cup(frame, cup, transparent=transparent)
            if swap is not None:
                left, right = swap
                _draw_cup(frame, left, shift=shift, lift=_LIFT, goes_to=self.options[right], transparent=transparent)
                _draw_cup(frame, right, shift=-shift, goes_to=self.options[left], transparent=transparent)
        return first, second

    @cached_property
    def _pads(self) -> np.ndarray:
        """The table with its coloured pads and nothing on it."""
        frame = canvas(1, self.num_cups, BACKGROUND)
        for cup, colour in enumerate(self.options):
            fill(frame, _PAD_TOP, CELL_PX * cup, CELL_PX - _PAD_TOP, CELL_PX, PALETTE[colour])
        return frame


def _draw_cup(
    frame: np.ndarray,
    cup: int,
    *,
    shift: int = 0,
    lift: int = 0,
    goes_to: str | None = None,
    transparent: bool = False,
) -> None:
    top, left = _CUP_TOP - lift, CELL_PX * cup + 3 + shift
    draw = open_box if transparent else fill
    draw(frame, top, left, _CUP_HEIGHT, _CUP_WIDTH, GREY)
    if goes_to is not None:
        fill(frame, top, left + 1, 3, _CUP_WIDTH - 2, PALETTE[goes_to])


def _draw_ball(frame: np.ndarray, cup: int) -> None:
    fill(frame, _BALL_TOP, CELL_PX * cup + _BALL_LEFT, _BALL_HEIGHT, _BALL_WIDTH, ORANGE)
