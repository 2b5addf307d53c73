"""Clips and thought videos of a world as real files. No model is needed for them.

folder/videos/<split>/  clips/<id>.mp4  thoughts/<id>.mp4  episodes.jsonl
"""

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from storm_hf.errors import ConfigurationError
from storm_hf.settings import check_values
from storm_hf.thought_video.generator import SimulatorGenerator
from storm_hf.thought_video.record import AskedExample, WorldExample
from storm_hf.worlds import (
    Asked,
    EpisodeFiles,
    EpisodeText,
    World,
    ask,
    make_world,
    split_seeds,
    write_episodes,
)
from storm_hf.worlds.asking import Wordings


VIDEOS = "videos"
_QUESTION_FORM = zlib.crc32(b"question form")  # so that the form of a question is drawn apart from its episode


@dataclass(frozen=True)
class WorldSplit:
    """Number of episodes of a split.

    Args:
        count (`int`, *optional*):
            Episodes whose depth the world draws.
        depths (`Mapping[int, int]`, *optional*):
            Number of episodes of each depth, instead of `count`.
        knobs (`Mapping[str, int]`, *optional*):
            Settings that differ from the recipe's, for example more steps than trained on.
        open_share (`float`, *optional*, defaults to `0.0`):
            Share of the rows whose `options` are empty, so that their question is asked as an open one, 0 to 1. A model
            that is to answer both forms is trained on both.
        wordings (`str`, *optional*, defaults to `"usual"`):
            `usual` asks every question in one wording. `trained` and `held_out` draw one of the wordings of these names, a form of
            the options and a form of the reply, see [`~storm_hf.worlds.ask`]: the `question` is complete, without `options`.

    Raises:
        ConfigurationError: If not exactly one of count and depths is given, the share is none or is given with other wordings
            than the usual one, or there are no such wordings.
    """

    count: int | None = None
    depths: Mapping[int, int] | None = None
    knobs: Mapping[str, int] = field(default_factory=dict)
    open_share: float = 0.0
    wordings: Wordings = "usual"

    def __post_init__(self) -> None:
        check_values(self, ["wordings"])
        if (self.count is None) == (self.depths is None):
            raise ConfigurationError(f"Expected a split with either a count or depths but got {self}.")
        if not 0 <= self.open_share <= 1:
            raise ConfigurationError(f"Expected an open_share from 0 to 1 but got {self.open_share}.")
        if self.open_share and self.wordings != "usual":
            raise ConfigurationError(
                f"Expected no open_share with the wordings {self.wordings}, which draw the form of the options, but got "
                f"{self.open_share}. Leave it out."
            )

    @property
    def num_episodes(self) -> int:
        """All episodes of the split."""
        return sum(self.depths.values()) if self.depths is not None else self.count or 0

    @property
    def depth_of_each(self) -> list[int] | None:
        """Depth of each episode, or None where the world draws it."""
        if self.depths is None:
            return None
        return [depth for depth, count in self.depths.items() for _ in range(count)]

    def is_open(self, seed: int) -> bool:
        """Tell if the question of an episode is asked without its options; its seed alone decides."""
        return bool(np.random.default_rng([seed, _QUESTION_FORM]).random() < self.open_share)

    def ask(self, world: World[Any], episode: EpisodeText) -> Asked:
        """Ask for the outcome of an episode as this split does; its seed alone decides how."""
        asked = ask(world, episode, episode.seed, self.wordings)
        return replace(asked, options=(), choice_style="none") if self.is_open(episode.seed) else asked


@dataclass(frozen=True)
class WorldRecipe:
    """Everything that determines the videos of a world's data set.

    Args:
        world (`str`):
            Name of the world, as `make_world` takes it.
        splits (`Mapping[str, WorldSplit]`):
            From `train`, `validation`, `test` or `longer` to its episodes.
        knobs (`Mapping[str, int]`, *optional*):
            Of the world, in all splits.
        seed (`int`, *optional*, defaults to `0`):
            Base seed. No two base seeds share an episode's seed, nor do two splits.
        canvas (`tuple[int, int]`, *optional*):
            Height and width that frames are padded to, in pixels before enlargement: a data set of several worlds has frames of
            one size.
    """

    world: str
    splits: Mapping[str, WorldSplit]
    knobs: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    canvas: tuple[int, int] | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "WorldRecipe":
        """Make a recipe of what a YAML file holds. Keys that this class does not know are for others.

        Raises:
            ConfigurationError: If it does not say which world and which splits.
        """
        if missing := sorted({"world", "splits"} - set(content)):
            raise ConfigurationError(
                f"Expected a recipe with world and splits but {' and '.join(missing)} is missing."
            )
        splits = {name: WorldSplit(**split) for name, split in content["splits"].items()}
        canvas = tuple(content["canvas"]) if content.get("canvas") else None
        return cls(content["world"], splits, content.get("knobs", {}), content.get("seed", 0), canvas)

    @property
    def num_episodes(self) -> int:
        """Episodes of all splits."""
        return sum(split.num_episodes for split in self.splits.values())

    @property
    def has_wordings(self) -> bool:
        """True if a split asks in other wordings than the usual one. Then the examples of all splits are [`AskedExample`]s."""
        return any(split.wordings != "usual" for split in self.splits.values())

    def world_of(self, split: str) -> World[Any]:
        """Make the world of a split."""
        return make_world(self.world, **{**self.knobs, **self.splits[split].knobs})

    def simulator_of(self, split: str) -> SimulatorGenerator:
        """Make what draws the episodes of a split."""
        return SimulatorGenerator(self.world_of(split), self.canvas, self.splits[split].wordings)


def render_world(
    recipe: WorldRecipe,
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    start_method: str = "spawn",
    on_finished: Callable[[EpisodeFiles], None] | None = None,
) -> dict[str, list[WorldExample]]:
    """Render the clips and thought videos of all splits to mp4 files, keeping those that are there already.

    Args:
        recipe ([`WorldRecipe`]):
            Episodes to render.
        folder (`str` or `os.PathLike`):
            The data set to be.
        workers (`int`, *optional*, defaults to `1`):
            Processes that render.
        start_method (`str`, *optional*, defaults to `"spawn"`):
            Start method of the processes.
        on_finished (`Callable[[EpisodeFiles], None]`, *optional*):
            Called once per episode when its files are complete. Progress bars use it.

    Returns:
        `dict[str, list[WorldExample]]`: The examples of each split, in the order of their seeds.

    Raises:
        ConfigurationError: If the world, a knob, a split or a depth is not as its world knows it.
        StaleWorkError: If the folder holds another world or other knobs.
    """
    examples = {}
    for name, split in recipe.splits.items():
        world = recipe.world_of(name)
        seeds = split_seeds(name, split.num_episodes, recipe.seed)
        files = write_episodes(
            world,
            seeds,
            Path(folder, VIDEOS, name),
            workers=workers,
            start_method=start_method,
            depths=split.depth_of_each,
            canvas=recipe.canvas,
            on_finished=on_finished,
        )
        generator = SimulatorGenerator(world)
        examples[name] = [
            _with_question(generator.example(episode), split.ask(world, episode), recipe.has_wordings)
            for episode in files
        ]
    return examples


def _with_question(example: WorldExample, asked: Asked, has_wordings: bool) -> WorldExample:
    if has_wordings:
        return AskedExample(**{**vars(example), **vars(asked)})
    return replace(example, options=asked.options)
