"""Latent decoder: the latents of a model as pictures, beside the thought video that it never saw."""

from storm_hf.diagnostics.latent_decoder.decoder import DecoderConfig, ThoughtDecoder
from storm_hf.diagnostics.latent_decoder.imagine import Imagination, imagine, states_drawn_right
from storm_hf.diagnostics.latent_decoder.pictures import (
    Plane,
    Scene,
    gallery_section,
    make_scene,
    path_chart,
    thought_film,
    write_gif,
)
from storm_hf.diagnostics.latent_decoder.run import DecoderTraining, train_decoder
from storm_hf.diagnostics.latent_decoder.steps import ThoughtSteps, find_trajectory, read_steps


__all__ = [
    "DecoderConfig",
    "DecoderTraining",
    "Imagination",
    "Plane",
    "Scene",
    "ThoughtDecoder",
    "ThoughtSteps",
    "find_trajectory",
    "gallery_section",
    "imagine",
    "make_scene",
    "path_chart",
    "read_steps",
    "states_drawn_right",
    "thought_film",
    "train_decoder",
    "write_gif",
]
