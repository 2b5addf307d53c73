"""Procedural videos with a question whose simulator shows the reasoning: a perfect thought-video generator."""

from storm_hf.worlds.episode import Episode, EpisodeText
from storm_hf.worlds.files import EpisodeFiles, read_episodes, world_of_clip, write_episodes
from storm_hf.worlds.question import format_answer, format_question, split_words
from storm_hf.worlds.registry import WORLD_NAMES, make_world
from storm_hf.worlds.splits import SPLITS, split_seeds
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
