"""`bounce`: a ball on a board of 3 x 3 fields with walls and slanted deflectors, and its field after some steps.

The clip is a single frame pair: the board, the ball, and the way it starts to go. The thought video is the film that
follows, held when the steps of the question are over. A ball that faces a wall turns round before it moves.

Axes: T frames, H height, W width, in pixels before enlargement.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from storm_hf.inputs.wording import NUMBER_WORDS, number_pairs, wording
from storm_hf.worlds.episode import EpisodeText, SpokenChain, fill_ways
from storm_hf.worlds.render import CELL_PX, LIME, WHITE, canvas, diagonal, distance, fill
from storm_hf.worlds.world import DemoSettings, Training, Words, World, check_knob, check_num_steps


FIELDS = ("northwest", "north", "northeast", "west", "centre", "east", "southwest", "south", "southeast")
_DIRECTIONS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}  # rows, columns per step
_DEFLECTORS = ("empty", "slash", "back")

_SIDE = 3
_OPPOSITE = {"right": "left", "left": "right", "up": "down", "down": "up"}
_TURNED_BY = {
    "empty": {direction: direction for direction in _DIRECTIONS},
    "slash": {"right": "up", "up": "right", "down": "left", "left": "down"},
    "back": {"right": "down", "down": "right", "left": "up", "up": "left"},
}
_BALL_PX, _BALL_MARGIN, _BALL_SHIFT = 6, 5, 3
_LINE = (90, 90, 90)
_WORDINGS = (
    "Where is the ball after {steps}?",
    "On which field of the board does the ball lie after {steps}?",
    "Follow the ball for {steps}. Which field does it reach?",
    "The ball starts to roll. Where has it got to {steps} later?",
    "Tell me the field that the ball arrives at after {steps}.",
    "Let the ball roll on for {steps} and name the place where it is stopped.",
    "If the ball keeps bouncing off walls and deflectors for {steps}, what is its position?",
    "Imagine what happens next: in which part of the board will the ball be after {steps}?",
    "Given the walls and the slanted bars, predict the place of the ball after {steps}.",
    "Please work out the square on which the ball stands at the end of {steps}.",
    "Suppose the ball makes {steps}. Which field is it on then?",
    "Where will we find the ball {steps} from now?",
    "What is the location of the ball on the grid after moving {steps}?",
    "The picture shows how the ball sets off. Say where its path leads in {steps}.",
    "Which of the nine fields holds the ball when it has moved for {steps}?",
)
_SENTENCES = (
    "The ball is on the {answer} field.",
    "It reaches the {answer} field.",
    "After {steps}, the ball lies in the {answer}.",
    "Its position is {answer}.",
)
_BARS = {"slash": "rising", "back": "falling"}
_STARTS = (
    "the ball starts on the {field} field, going {heading};",
    "at first the ball is on the {field} field and goes {heading};",
)
_ROLLED = (
    "in step {step}, the ball moves {way} to the {field} field and {leaves}",
    "moving {way}, the ball reaches the {field} field in step {step} and {leaves}",
    "step {step} takes the ball {way} to the {field} field, where it {leaves}",
)
_BOUNCED = (
    "in step {step}, the ball bounces off the wall, moves {way} to the {field} field and {leaves}",
    "thrown back by the wall and moving {way}, the ball reaches the {field} field in step {step} and {leaves}",
    "step {step} turns the ball round at the wall and takes it {way} to the {field} field, where it {leaves}",
)
_WAITED = (
    "the question ends after {steps}, so in step {step} the ball stays on the {field} field, going {heading}",
    "step {step} is beyond the {steps} asked for, which leaves the ball on the {field} field, going {heading}",
)
_ENDS = (
    "; after {steps}, the ball is on the {answer} field",
    "; its field after {steps} is {answer}",
)


@dataclass(frozen=True)
class _BouncePlan:
    """The facts of an episode: what is on each field, where the ball starts and how, and the steps asked for."""

    board: tuple[str, ...]
    start: str
    depth: int


@dataclass(frozen=True)
class Bounce(World[_BouncePlan]):
    """A ball among walls and deflectors.

    Args:
        num_deflectors (`int`, *optional*, defaults to 3):
            Slanted deflectors on the board, 0 to 9.
        num_steps (`int`, *optional*, defaults to 6):
            Steps K that the thought video shows.
        min_steps (`int`, *optional*, defaults to 4):
            Fewest steps that a question asks for, unless a depth is asked for.
        max_steps (`int`, *optional*, defaults to 6):
            Most steps that a question asks for; every number between is drawn equally often.
    """

    name: ClassVar[str] = "bounce"
    demo: ClassVar[DemoSettings] = DemoSettings(
        task="A ball rolls over a board with walls and three deflectors. The clip shows where it starts and where it "
        "heads. Where is it after some steps?",
        depth_unit="steps",
        knobs={"num_steps": 6, "min_steps": 4, "max_steps": 6},
        test_depths={4: 128, 5: 256, 6: 256},
        deep=(5, 6),
        whitening_rank=64,
        teacher_noise=0.3,  # the rollout errs more here than on `shuffle`, and Stage I has to bear it
        target_layout="concat",  # where the deflectors lie is part of the picture: a probe reads the state at rank 64
        trainings={
            "base": Training(400, 2e-3),  # after 260 it still misreads one token in forty, and the targets with it
            "align": Training(800),
            "answer": Training(400, 1e-4),
            "direct": Training(1200),
            "chain_of_thought": Training(1200),
            "terse_chain": Training(1200),
        },
    )

    question_wordings: ClassVar[tuple[str, ...]] = _WORDINGS
    answer_sentences: ClassVar[tuple[str, ...]] = _SENTENCES

    num_deflectors: int = 3
    num_steps: int = 6
    min_steps: int = 4
    max_steps: int = 6

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_num_steps(self.name, self.num_steps)
        check_knob(self.name, "num_deflectors", self.num_deflectors, 0, len(FIELDS))
        check_knob(self.name, "max_steps", self.max_steps, 1, self.num_steps)
        check_knob(self.name, "min_steps", self.min_steps, 1, self.max_steps)

    @property
    def options(self) -> tuple[str, ...]:
        """Fields of the board, row by row."""
        return FIELDS

    @property
    def state_names(self) -> tuple[str, ...]:
        """Field and direction, such as `north-left`."""
        return tuple(f"{field}-{direction}" for field in FIELDS for direction in _DIRECTIONS)

    @property
    def depths(self) -> range:
        """Numbers of steps that can be asked for."""
        return range(1, self.num_steps + 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """The board, a cell for each field."""
        return _SIDE * CELL_PX, _SIDE * CELL_PX

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that a text of this world can use, sorted."""
        plain = "ball going board step moves to Where is the after steps?"
        return wording(self.options, plain, *_DIRECTIONS, *_DEFLECTORS, _WORDINGS[0].format(**_blanks(1)))

    def _read_frame(self, frame: np.ndarray) -> str:
        """Look for the ball where it lies when it leaves each field in each direction."""
        boxes = [(*_ball_corner(state, _BALL_SHIFT), _BALL_PX, _BALL_PX) for state in self.state_names]
        return self.state_names[int(np.argmin([distance(frame, *box, WHITE) for box in boxes]))]

    def _draw_plan(self, generator: np.random.Generator, depth: int | None) -> _BouncePlan:
        """Draw the answer first and then boards until one leads there, so that every field is correct equally often."""
        drawn_depth = int(generator.integers(self.min_steps, self.max_steps + 1))
        answer = FIELDS[generator.integers(len(FIELDS))]
        while True:
            plan = _BouncePlan(
                board=self._draw_board(generator),
                start=str(generator.choice(self.state_names)),
                depth=drawn_depth if depth is None else depth,
            )
            if self._answer(plan, self._states(plan)) == answer:
                return plan

    def _draw_board(self, generator: np.random.Generator) -> tuple[str, ...]:
        board = ["empty"] * len(FIELDS)
        for field in generator.permutation(len(FIELDS))[: self.num_deflectors]:
            board[field] = _DEFLECTORS[generator.integers(1, len(_DEFLECTORS))]
        return tuple(board)

    def _start(self, plan: _BouncePlan) -> str:
        return plan.start

    def _advance(self, plan: _BouncePlan, step: int, state: str) -> str:
        if step >= plan.depth:
            return state
        direction = _way(state)
        row, column = divmod(FIELDS.index(_parts(state)[0]), _SIDE)
        down, right = _DIRECTIONS[direction]
        reached = _SIDE * (row + down) + column + right
        return f"{FIELDS[reached]}-{_TURNED_BY[plan.board[reached]][direction]}"

    def _answer(self, plan: _BouncePlan, states: list[str]) -> str:
        return _parts(states[-1])[0]

    def _words(self, plan: _BouncePlan, states: list[str]) -> Words:
        balls = [f"ball {_spoken(state)}" for state in states]
        reasons = (f"ball moves to {_spoken(state)}" for state in states)
        return Words(
            question=_WORDINGS[0].format(**_blanks(plan.depth)),
            depth=plan.depth,
            clip_caption=f"ball {_spoken(plan.start)} . board {' '.join(plan.board)} .",
            thought_caption=number_pairs(balls, first=1),
            chain_of_thought=f"step {number_pairs(reasons, first=1).replace(' . ', ' . step ')}",
            terse_chain=" ".join(word for state in states for word in _parts(state)),
        )

    def _say_chain(self, plan: _BouncePlan, states: list[str]) -> SpokenChain:
        field, heading = _parts(plan.start)
        moves = enumerate(pairwise([plan.start, *states]), start=1)
        return SpokenChain(
            starts=fill_ways(_STARTS, field=field, heading=heading),
            steps=tuple(_say_step(plan, step, *places) for step, places in moves),
            ends=fill_ways(_ENDS, answer=self._answer(plan, states), **_blanks(plan.depth)),
        )

    def _blanks(self, episode: EpisodeText) -> dict[str, str]:
        return _blanks(episode.depth)

    def _draw_clip(self, plan: _BouncePlan) -> np.ndarray:
        return np.stack(_ball_frames(_draw_board(plan.board), plan.start))

    def _draw_thought(self, plan: _BouncePlan) -> np.ndarray:
        board = _draw_board(plan.board)
        return np.stack(
            [frame for state in self._states(plan) for frame in _ball_frames(board, state)]
        )  # (T, H, W, 3)


def _parts(state: str) -> tuple[str, str]:
    field, direction = state.split("-")
    return field, direction


def _way(state: str) -> str:
    """Give the direction in which a ball moves on: it turns round where it faces a wall."""
    field, direction = _parts(state)
    row, column = divmod(FIELDS.index(field), _SIDE)
    down, right = _DIRECTIONS[direction]
    is_on_board = 0 <= row + down < _SIDE and 0 <= column + right < _SIDE
    return direction if is_on_board else _OPPOSITE[direction]


def _say_step(plan: _BouncePlan, step: int, before: str, after: str) -> tuple[str, ...]:
    field, heading = _parts(after)
    if step > plan.depth:
        return fill_ways(_WAITED, step=NUMBER_WORDS[step], field=field, heading=heading, **_blanks(plan.depth))
    way, bar = _way(before), plan.board[FIELDS.index(field)]
    leaves = f"keeps going {heading}" if bar == "empty" else f"is turned {heading} by the {_BARS[bar]} bar"
    ways = _ROLLED if way == _parts(before)[1] else _BOUNCED
    return fill_ways(ways, step=NUMBER_WORDS[step], way=way, field=field, leaves=leaves)


def _spoken(state: str) -> str:
    return " going ".join(_parts(state))


def _blanks(depth: int) -> dict[str, str]:
    return {"steps": f"{NUMBER_WORDS[depth]} {'step' if depth == 1 else 'steps'}"}


def _draw_board(board: tuple[str, ...]) -> np.ndarray:
    """Draw the fields, each in a colour of its own so that a picture identifies it, and the deflectors."""
    frame = canvas(_SIDE, _SIDE)
    for field, deflector in enumerate(board):
        row, column = divmod(field, _SIDE)
        top, left = CELL_PX * row, CELL_PX * column
        fill(frame, top, left, CELL_PX, CELL_PX, (20 + 55 * column, 25, 20 + 55 * row))
        fill(frame, top, left, 1, CELL_PX, _LINE)
        fill(frame, top, left, CELL_PX, 1, _LINE)
        if deflector != "empty":
            diagonal(frame, top, left, rising=deflector == "slash", colour=LIME)
    return frame


def _ball_frames(board: np.ndarray, state: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw the ball in the middle of its field, and then on its way."""
    resting, leaving = board.copy(), board.copy()
    for frame, shift in ((resting, 0), (leaving, _BALL_SHIFT)):
        fill(frame, *_ball_corner(state, shift), _BALL_PX, _BALL_PX, WHITE)
    return resting, leaving


def _ball_corner(state: str, shift: int) -> tuple[int, int]:
    """Top and left of a ball that has gone so many pixels from the middle of its field."""
    field, direction = _parts(state)
    row, column = divmod(FIELDS.index(field), _SIDE)
    down, right = _DIRECTIONS[direction]
    return CELL_PX * row + _BALL_MARGIN + shift * down, CELL_PX * column + _BALL_MARGIN + shift * right
