"""Procedural videos with a question whose simulator shows the reasoning: a perfect thought-video generator."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use
from storm_hf.worlds.registry import WORLD_NAMES, make_world


if TYPE_CHECKING:
    from storm_hf.inputs.wording import format_answer, format_question, split_words
    from storm_hf.worlds.asking import Asked, ask
    from storm_hf.worlds.episode import Episode, EpisodeText
    from storm_hf.worlds.files import SPLITS, EpisodeFiles, read_episodes, split_seeds, world_of_clip, write_episodes
    from storm_hf.worlds.world import World

_MODULE_OF = {
    "Asked": "storm_hf.worlds.asking",
    "Episode": "storm_hf.worlds.episode",
    "EpisodeFiles": "storm_hf.worlds.files",
    "EpisodeText": "storm_hf.worlds.episode",
    "SPLITS": "storm_hf.worlds.files",
    "World": "storm_hf.worlds.world",
    "ask": "storm_hf.worlds.asking",
    "format_answer": "storm_hf.inputs.wording",
    "format_question": "storm_hf.inputs.wording",
    "read_episodes": "storm_hf.worlds.files",
    "split_seeds": "storm_hf.worlds.files",
    "split_words": "storm_hf.inputs.wording",
    "world_of_clip": "storm_hf.worlds.files",
    "write_episodes": "storm_hf.worlds.files",
}

__all__ = [
    "SPLITS",
    "WORLD_NAMES",
    "Asked",
    "Episode",
    "EpisodeFiles",
    "EpisodeText",
    "World",
    "ask",
    "format_answer",
    "format_question",
    "make_world",
    "read_episodes",
    "split_seeds",
    "split_words",
    "world_of_clip",
    "write_episodes",
]

__getattr__ = first_use(__name__, _MODULE_OF)
