"""`lattice`: a pattern of many tiles, under operations that mix them, and a row of it at the end.

The clip shows the pattern, then one operation per frame pair, as a sign that fills the frame. The thought video shows the pattern
after each operation. Two operations shift all tiles round the edges; two turn a tile over where its neighbour is on, so that after
a few of them a tile depends on many others. All of them can be undone, so that a pattern keeps all its bits, 48 by default, at every
step: a word that a small vocabulary has holds four of them.

Texts have two ways to say a pattern: tile by tile (`chain_of_thought`, `spoken_chain`), and a syllable for each block of two by two
tiles, of which there are sixteen (`terse_chain`, captions). A ratio of lengths is one to that encoding. Working backwards from the question
needs fewer tiles than all of them as long as few operations mix.

Axes: T frames, H height, W width, in pixels before enlargement; R rows, C columns of tiles.
"""

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from storm_hf.inputs.wording import NUMBER_WORDS, ORDINAL_WORDS, number_pairs, wording
from storm_hf.worlds.episode import EpisodeText, SpokenChain, fill_ways
from storm_hf.worlds.render import CELL_PX, PALETTE, Colour, canvas, fill
from storm_hf.worlds.world import DemoSettings, Training, Words, World, check_knob, check_num_steps


_GRID = 1  # dark pixels between tiles
_ON: Colour = (235, 205, 60)
_OFF: Colour = (40, 60, 120)
_SYLLABLES = tuple(f"{consonant}{vowel}" for consonant in "bdkm" for vowel in "aeiu")
_NUM_ASKED = 3  # tiles of a row whose ones and zeros make the answer
_MAX_TILES = 12  # along a side
_WORDINGS = (
    "Which number do the last three tiles of row {row} show at the end?",
    "Read the three rightmost tiles of row {row} as a binary number once all operations are done. What is it?",
    "After the last operation, what number is written in the final three tiles of the {ordinal} row?",
    "Treat bright tiles as ones and dark tiles as zeros. What do the last three tiles of row {row} spell when nothing changes any "
    "more?",
    "Apply every operation to the pattern. Which value do the three tiles at the right end of row {row} have?",
    "Please work out the number in the last three columns of row {row} in the finished pattern.",
    "Look at row {row} of the final pattern and say which number its last three tiles form.",
    "What do the three tiles on the far right of the {ordinal} row encode as a binary number in the end?",
    "Follow the tiles through all changes. Name the number that closes row {row}.",
    "The signs transform the pattern step by step. Which number results at the right edge of row {row}?",
    "When all signs have been carried out, how much is the end of row {row} worth?",
    "Give the number that the rightmost triple of tiles in the {ordinal} row stands for after everything.",
    "Suppose you see the pattern after its last change: what is the binary value of the tiles that end row {row}?",
    "Decode the bits on the right-hand side of row {row} in the resulting grid.",
    "The video has ended. What value is formed by the three outermost tiles on the right of row {row}?",
)
_SENTENCES = (
    "The tiles show {answer}.",
    "The number is {answer}.",
    "Those tiles stand for the number {answer}.",
    "In the end they read {answer}.",
)
_STARTS = ("the rows start as {rows};", "at first the rows are {rows};")
_CHANGED = (
    "step {step} {changes}, so the rows are now {rows}",
    "in step {step}, the sign {changes}, which gives the rows {rows}",
)
_KEPT = (
    "step {step} changes nothing, so the rows are still {rows}",
    "in step {step}, no sign is shown, which leaves the rows {rows}",
)
_ENDS = (
    "; row {row} ends in {bits}, which is binary for {answer}",
    "; the last three tiles of row {row} are {bits}, the binary number {answer}",
)
_CHANGES = {  # by each operation
    "left": "rotates every row one tile to the left",
    "down": "rotates every column one tile down",
    "across": "turns over every tile whose left neighbour was on",
    "below": "turns over every tile whose upper neighbour was on",
}


def _across(tiles: np.ndarray) -> np.ndarray:
    mixed = tiles.copy()
    mixed[:, 1:] ^= tiles[:, :-1]
    return mixed


def _below(tiles: np.ndarray) -> np.ndarray:
    return _across(tiles.T).T


# What each operation does to tiles (R, C), and its sign: a colour, and the boxes (top, left, height, width) in each cell.
_OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "left": lambda tiles: np.roll(tiles, -1, axis=1),
    "down": lambda tiles: np.roll(tiles, 1, axis=0),
    "across": _across,
    "below": _below,
}
OPERATIONS = tuple(_OPERATIONS)
_SIGNS: dict[str, tuple[Colour, tuple[tuple[int, int, int, int], ...]]] = {
    "left": (PALETTE["red"], ((5, 2, 6, 6),)),
    "down": (PALETTE["blue"], ((8, 5, 6, 6),)),
    "across": (PALETTE["green"], ((2, 3, 12, 3), (2, 10, 12, 3))),
    "below": (PALETTE["purple"], ((3, 2, 3, 12), (10, 2, 3, 12))),
}


@dataclass(frozen=True)
class LatticePlan:
    """The facts of an episode: the first pattern, what happens at each step, if anything, and the row asked for (from 0)."""

    start: str
    operations: tuple[str | None, ...]
    row: int

    @property
    def depth(self) -> int:
        """Number of operations."""
        return sum(operation is not None for operation in self.operations)


@dataclass(frozen=True)
class Patterns(Collection[str]):
    """All patterns of so many tiles, as ones and zeros row by row: too many to list, easy to recognise.

    Args:
        num_tiles (`int`):
            Length of each.
    """

    num_tiles: int

    def __contains__(self, state: object) -> bool:
        return isinstance(state, str) and len(state) == self.num_tiles and set(state) <= {"0", "1"}

    def __len__(self) -> int:
        return int(2**self.num_tiles)

    def __iter__(self) -> Iterator[str]:
        return ("".join(bits) for bits in itertools.product("01", repeat=self.num_tiles))


@dataclass(frozen=True)
class Lattice(World[LatticePlan]):
    """A pattern of tiles that are on or off.

    Args:
        num_rows (`int`, *optional*, defaults to 4):
            Rows of tiles, up to 12, in whole cells of 16 pixels.
        num_columns (`int`, *optional*, defaults to 12):
            Columns of tiles, 4 to 12, in whole cells. A state has as many bits as there are tiles.
        tile_px (`int`, *optional*, defaults to 4):
            Pixels along a tile before enlargement, 4 or 8. With 4, three tokens of the vision tower hold 48 tiles; with 8 it takes
            twelve, and a model of three layers does not gather those in one latent.
        num_steps (`int`, *optional*, defaults to 6):
            Steps K after the pattern was shown, idle ones included.
        min_operations (`int`, *optional*, defaults to 3):
            Fewest steps in which something happens, unless a depth is asked for.
        max_operations (`int`, *optional*, defaults to 6):
            Most steps in which something happens; every number between is drawn equally often.
    """

    name: ClassVar[str] = "lattice"
    demo: ClassVar[DemoSettings] = DemoSettings(
        task="A pattern of 48 tiles is shown, then signs for operations that shift or mix all of them. What do three tiles of a "
        "row show at the end?",
        depth_unit="operations",
        knobs={"num_steps": 6, "min_operations": 0, "max_operations": 6},
        test_depths={0: 64, 1: 64, 2: 64, 3: 64, 4: 64, 5: 256, 6: 256},
        deep=(5, 6),
        whitening_rank=None,  # a probe reads all 48 tiles from 48 components of one base and from 52 of another
        target_layout="concat",  # averaged over space, tiles are lost
        bottleneck_share=0.5,  # without it the answer learned the clips by heart: right on those trained on, chance on others
        teacher_noise=0.3,  # an operation that mixes tiles spreads the errors of the step before
        latent_scale=0.25,  # with scale 1 and half the rate, a smaller lattice was not learned
        rope_theta=4.0,  # the first latent has to distinguish the cells of the pattern
        num_train=12000,
        trainings={
            "base": Training(2000, 2e-3),  # after 700 it misread one token in fifteen, and targets lost tiles with it
            "align": Training(4000, 2e-3),  # tiles that mix are learned one after the other
            "answer": Training(
                400, 3e-5
            ),  # at 1e-4 the rollout that Stage I built loses tiles that no answer asks for
            "direct": Training(4400),
            "chain_of_thought": Training(4400),
            "terse_chain": Training(4400),
        },
    )

    question_wordings: ClassVar[tuple[str, ...]] = _WORDINGS
    answer_sentences: ClassVar[tuple[str, ...]] = _SENTENCES

    num_rows: int = 4
    num_columns: int = 12
    tile_px: int = 4
    num_steps: int = 6
    min_operations: int = 3
    max_operations: int = 6

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_num_steps(self.name, self.num_steps)
        check_knob(self.name, "tile_px / 4", self.tile_px / 4, 1, 2)
        per_cell = CELL_PX // self.tile_px  # tiles along a side
        check_knob(self.name, f"num_rows / {per_cell}", self.num_rows / per_cell, 1, _MAX_TILES // per_cell)
        check_knob(
            self.name, f"num_columns / {per_cell}", self.num_columns / per_cell, 4 // per_cell, _MAX_TILES // per_cell
        )
        check_knob(self.name, "max_operations", self.max_operations, 0, self.num_steps)
        check_knob(self.name, "min_operations", self.min_operations, 0, self.max_operations)

    @property
    def options(self) -> tuple[str, ...]:
        """The numbers that three tiles can show."""
        return NUMBER_WORDS[: 2**_NUM_ASKED]

    @property
    def state_names(self) -> Patterns:
        """Every pattern."""
        return Patterns(self.num_rows * self.num_columns)

    @property
    def depths(self) -> range:
        """Numbers of operations."""
        return range(self.num_steps + 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Whole cells."""
        return self.tile_px * self.num_rows, self.tile_px * self.num_columns

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that a text of this world can use, sorted."""
        return wording(
            self.options,
            _WORDINGS[0].format(**_blanks(0)),
            "pattern none step on off tiles",
            *OPERATIONS,
            *_SYLLABLES,
        )

    def _describe_states(self) -> str:
        return f"{self.num_rows * self.num_columns} ones and zeros, row by row"

    def _read_frame(self, frame: np.ndarray) -> str:
        """See whether each tile is nearer to on or to off."""
        tiles = frame.reshape(self.num_rows, self.tile_px, self.num_columns, self.tile_px, 3)[:, _GRID:, :, _GRID:]
        colours = tiles.mean(axis=(1, 3))  # (R, C, 3)
        far_from_on, far_from_off = (((colours - np.array(colour)) ** 2).sum(axis=-1) for colour in (_ON, _OFF))
        return _state(far_from_on < far_from_off)

    def _draw_plan(self, generator: np.random.Generator, depth: int | None) -> LatticePlan:
        drawn_depth = int(generator.integers(self.min_operations, self.max_operations + 1))
        start = _state(generator.integers(2, size=(self.num_rows, self.num_columns)))
        order = generator.permutation(self.num_steps)
        drawn = generator.choice(OPERATIONS, self.num_steps).tolist()
        active = set(order[: drawn_depth if depth is None else depth].tolist())
        operations = tuple(operation if step in active else None for step, operation in enumerate(drawn))
        return LatticePlan(start, operations, int(generator.integers(self.num_rows)))

    def _start(self, plan: LatticePlan) -> str:
        return plan.start

    def _advance(self, plan: LatticePlan, step: int, state: str) -> str:
        operation = plan.operations[step]
        return state if operation is None else _state(_OPERATIONS[operation](self._tiles(state)))

    def _answer(self, plan: LatticePlan, states: list[str]) -> str:
        return NUMBER_WORDS[int(self._asked(plan, states), 2)]

    def _asked(self, plan: LatticePlan, states: list[str]) -> str:
        """Give the tiles that the question asks for after the last step, as ones and zeros."""
        return "".join(map(str, self._tiles(states[-1])[plan.row, -_NUM_ASKED:]))

    def _words(self, plan: LatticePlan, states: list[str]) -> Words:
        signs = [operation or "none" for operation in plan.operations]
        said = [self._syllables(state) for state in states]
        tiles = (" ".join("on" if bit == "1" else "off" for bit in state) for state in states)
        reasons = (f"{sign} , tiles {words}" for sign, words in zip(signs, tiles, strict=True))
        return Words(
            question=_WORDINGS[0].format(**_blanks(plan.row)),
            depth=plan.depth,
            clip_caption=number_pairs([f"pattern {self._syllables(plan.start)}", *signs], first=0),
            thought_caption=number_pairs([f"pattern {words}" for words in said], first=1),
            chain_of_thought=f"step {number_pairs(reasons, first=1).replace(' . ', ' . step ')}",
            terse_chain=" ".join(said),
        )

    def _say_chain(self, plan: LatticePlan, states: list[str]) -> SpokenChain:
        return SpokenChain(
            starts=fill_ways(_STARTS, rows=self._say_rows(plan.start)),
            steps=tuple(self._say_step(plan, step, state) for step, state in enumerate(states)),
            ends=fill_ways(
                _ENDS, bits=self._asked(plan, states), answer=self._answer(plan, states), **_blanks(plan.row)
            ),
        )

    def _say_step(self, plan: LatticePlan, step: int, state: str) -> tuple[str, ...]:
        operation, said = plan.operations[step], {"step": NUMBER_WORDS[step + 1], "rows": self._say_rows(state)}
        return (
            fill_ways(_KEPT, **said) if operation is None else fill_ways(_CHANGED, changes=_CHANGES[operation], **said)
        )

    def _say_rows(self, state: str) -> str:
        rows = ["".join(map(str, row)) for row in self._tiles(state).tolist()]
        return f"{', '.join(rows[:-1])} and {rows[-1]}"

    def _blanks(self, episode: EpisodeText) -> dict[str, str]:
        return _blanks(self._plan(episode.seed, episode.depth).row)

    def _syllables(self, state: str) -> str:
        """Say a pattern, a syllable for each block of two by two tiles: the upper two are its consonant, the lower its vowel."""
        blocks = self._tiles(state).reshape(self.num_rows // 2, 2, self.num_columns // 2, 2).swapaxes(1, 2)
        numbers = blocks.reshape(-1, 4) @ (8, 4, 2, 1)
        return " ".join(_SYLLABLES[number] for number in numbers.tolist())

    def _tiles(self, state: str) -> np.ndarray:
        return np.array(list(state), dtype=np.int64).reshape(self.num_rows, self.num_columns)  # (R, C)

    def _draw_clip(self, plan: LatticePlan) -> np.ndarray:
        frames = [self._draw_pattern(plan.start), *(self._draw_sign(operation) for operation in plan.operations)]
        return np.stack(frames).repeat(2, axis=0)

    def _draw_thought(self, plan: LatticePlan) -> np.ndarray:
        return np.stack([self._draw_pattern(state) for state in self._states(plan)]).repeat(2, axis=0)  # (T, H, W, 3)

    def _draw_pattern(self, state: str) -> np.ndarray:
        frame = self._canvas()
        for (row, column), is_on in np.ndenumerate(self._tiles(state)):
            corner = self.tile_px * row + _GRID, self.tile_px * column + _GRID
            fill(frame, *corner, self.tile_px - _GRID, self.tile_px - _GRID, _ON if is_on else _OFF)
        return frame

    def _draw_sign(self, operation: str | None) -> np.ndarray:
        frame = self._canvas()
        if operation is not None:
            colour, boxes = _SIGNS[operation]
            for row, column in np.ndindex(frame.shape[0] // CELL_PX, frame.shape[1] // CELL_PX):
                for top, left, height, width in boxes:
                    fill(frame, CELL_PX * row + top, CELL_PX * column + left, height, width, colour)
        return frame

    def _canvas(self) -> np.ndarray:
        height, width = self.frame_size
        return canvas(height // CELL_PX, width // CELL_PX)


def _blanks(row: int) -> dict[str, str]:
    return {"row": NUMBER_WORDS[row + 1], "ordinal": ORDINAL_WORDS[row + 1]}


def _state(tiles: np.ndarray) -> str:
    return "".join("1" if tile else "0" for tile in tiles.ravel().tolist())
