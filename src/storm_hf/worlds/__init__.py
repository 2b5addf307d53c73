"""Procedural videos with a question whose simulator shows the reasoning: a perfect thought-video generator."""

from storm_hf.inputs.wording import format_answer, format_question, split_words
from storm_hf.worlds.episode import Episode, EpisodeText
from storm_hf.worlds.files import SPLITS, EpisodeFiles, read_episodes, split_seeds, world_of_clip, write_episodes
from storm_hf.worlds.registry import WORLD_NAMES, make_world
from storm_hf.worlds.world import World


__all__ = [
    "SPLITS",
    "WORLD_NAMES",
    "Episode",
    "EpisodeFiles",
    "EpisodeText",
    "World",
    "format_answer",
    "format_question",
    "make_world",
    "read_episodes",
    "split_seeds",
    "split_words",
    "world_of_clip",
    "write_episodes",
]
