"""Questions about the order of a film's parts. Their answers are known without an annotator.

    order   three consecutive parts, shown in a drawn order: in which order do they belong?
    next    a part, then four candidates from the same film: which of them comes next?

Parts have one length and do not overlap. A question is drawn from its seed alone, before a film is opened. The film's length
then turns shares into seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Any, Literal

import numpy as np

from storm_hf.errors import ConfigurationError
from storm_hf.settings import Limit, PositiveFloat, check_values


SegmentTask = Literal["order", "next"]

NUM_ORDERED = 3
_NUM_CANDIDATES = 4
_QUESTIONS = {
    "order": "The clip shows three parts of a film, numbered 1 to 3 as they are shown. In which order do they belong?",
    "next": "The clip shows a part of a film, then four candidates, numbered 1 to 4. Which of them comes next in the film?",
}


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """Settings of questions about parts of a film.

    Args:
        tasks (`tuple[str, ...]`, *optional*, defaults to `("order", "next")`):
            Kinds of questions, which take turns: `order` and `next`.
        segment_seconds (`float`, *optional*, defaults to `1.0`):
            Length of a part. A question of `order` needs three times as much of a film, one of `next` five times.
        fps (`float`, *optional*, defaults to `4.0`):
            Frames of a clip per second.
        num_orders (`int`, *optional*, defaults to `6`):
            Options of `order`: all 6, or 4 of them, drawn and shuffled.
        frame_size (`tuple[int, int]`, *optional*, defaults to `(112, 196)`):
            Height and width of clips and thought videos.
        min_crop (`float`, *optional*, defaults to `0.7`):
            Smallest side of the drawn crop, as a share of the largest crop of that shape; 1 draws none.

    Raises:
        ConfigurationError: If a value is out of its range, or a part holds no frame.
    """

    tasks: tuple[SegmentTask, ...] = ("order", "next")
    segment_seconds: PositiveFloat = 1.0
    fps: PositiveFloat = 4.0
    num_orders: Literal[4, 6] = 6
    frame_size: tuple[int, int] = (112, 196)
    min_crop: Annotated[float, Limit("above 0 and up to 1", lambda share: 0 < share <= 1)] = 0.7

    def __post_init__(self) -> None:
        check_values(self)
        if not self.tasks or len({*self.tasks}) < len(self.tasks):
            raise ConfigurationError(f"Expected the tasks order, next or both, each once, but got {list(self.tasks)}.")
        if any(size < 2 or size % 2 for size in self.frame_size):
            raise ConfigurationError(f"Expected frame_size as an even height and width but got {self.frame_size}.")
        if self.frames_per_segment < 1:
            raise ConfigurationError(
                f"Expected parts that hold a frame but got {self.segment_seconds} s at {self.fps} frames per second."
            )

    @property
    def frames_per_segment(self) -> int:
        """Frames of a part in the clip."""
        return round(self.segment_seconds * self.fps)


@dataclass(frozen=True, kw_only=True)
class SegmentQuestion:
    """A drawn question, before its film is known.

    Args:
        task (`str`):
            `order` or `next`.
        answer (`str`):
            The correct option.
        options (`tuple[str, ...]`):
            Orders such as `"231"`, or the numbers of the candidates.
        shown (`tuple[int, ...]`):
            Parts in the order in which the clip shows them. The thought video shows those of `thought`.
        thought (`tuple[int, ...]`):
            Parts of the thought video, in the film's order.
        arrangement (`tuple[int, ...]`):
            Parts in the order in which the film has them. Parts 0 and 1 of `next` are the one that is asked about and the one
            that follows it, so they stay together.
        places (`tuple[float, ...]`):
            Shares of the film's spare time before each group of parts, ascending.
        crop (`tuple[float, float, float]`):
            Size of the crop as a share of the largest one, and its place from the left and the top as shares of what is spare.
    """

    task: SegmentTask
    answer: str
    options: tuple[str, ...]
    shown: tuple[int, ...]
    thought: tuple[int, ...]
    arrangement: tuple[int, ...]
    places: tuple[float, ...]
    crop: tuple[float, float, float]

    @classmethod
    def draw(cls, task: SegmentTask, seed: int, settings: SegmentSettings) -> "SegmentQuestion":
        """Draw a question. The same seed draws the same one."""
        draw = np.random.default_rng(seed)
        crop = (float(draw.uniform(settings.min_crop, 1)), float(draw.uniform()), float(draw.uniform()))
        parts = _draw_order(draw, settings.num_orders) if task == "order" else _draw_next(draw)
        return cls(task=task, crop=crop, **parts)

    @property
    def question(self) -> str:
        """The question in words."""
        return _QUESTIONS[self.task]

    def starts(self, duration: float, segment_seconds: float) -> np.ndarray:
        """Place the parts in a film.

        Args:
            duration (`float`):
                Seconds of the film, at least those of all parts.
            segment_seconds (`float`):
                Length of a part.

        Returns:
            `np.ndarray` of shape `(num_parts,)`: Second at which each part begins, by its number.
        """
        spare = max(duration - len(self.arrangement) * segment_seconds, 0.0)
        starts = np.zeros(len(self.arrangement))
        for position, part in enumerate(self.arrangement):
            starts[part] = self.places[position] * spare + position * segment_seconds
        return starts


def _draw_order(draw: np.random.Generator, num_orders: int) -> dict[str, Any]:
    shown = draw.permutation(NUM_ORDERED)
    answer = _order_name(np.argsort(shown))
    orders = [_order_name(order) for order in permutations(range(NUM_ORDERED))]
    if num_orders < len(orders):
        others = [order for order in orders if order != answer]
        orders = draw.permutation([answer, *draw.choice(others, num_orders - 1, replace=False)]).tolist()
    return {
        "answer": answer,
        "options": tuple(orders),
        "shown": tuple(shown.tolist()),
        "thought": tuple(range(NUM_ORDERED)),
        "arrangement": tuple(range(NUM_ORDERED)),
        "places": (float(draw.uniform()),) * NUM_ORDERED,
    }


def _order_name(order: Iterable[int]) -> str:
    return "".join(str(part + 1) for part in order)


def _draw_next(draw: np.random.Generator) -> dict[str, Any]:
    candidates = (1 + draw.permutation(_NUM_CANDIDATES)).tolist()
    groups = [(0, 1), *((part,) for part in range(2, 1 + _NUM_CANDIDATES))]
    shares = np.sort(draw.uniform(size=len(groups))).tolist()
    placed = [
        (part, share)
        for group, share in zip(draw.permutation(len(groups)), shares, strict=True)
        for part in groups[group]
    ]
    return {
        "answer": str(1 + candidates.index(1)),
        "options": tuple(str(1 + number) for number in range(_NUM_CANDIDATES)),
        "shown": (0, *candidates),
        "thought": (1,),
        "arrangement": tuple(part for part, _ in placed),
        "places": tuple(share for _, share in placed),
    }
