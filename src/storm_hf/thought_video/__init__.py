"""Thought videos: clips that show the reasoning between a question and its answer, and what makes them."""

from storm_hf.thought_video.generator import SimulatorGenerator, ThoughtVideoGenerator
from storm_hf.thought_video.record import ThoughtExample, ThoughtVideo, WorldExample
from storm_hf.thought_video.worlds_dataset import WorldRecipe, WorldSplit, render_world


__all__ = [
    "SimulatorGenerator",
    "ThoughtExample",
    "ThoughtVideo",
    "ThoughtVideoGenerator",
    "WorldExample",
    "WorldRecipe",
    "WorldSplit",
    "render_world",
]
