"""A tiny random STORM as `storm demo` saves it: model, processor, trained on one world, with a gallery of thoughts."""

from pathlib import Path

import numpy as np
from tests.tiny import enlarge_weights
from transformers import set_seed

from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.evaluation.thought_gallery import GALLERY_FILE
from storm_hf.model import StormForConditionalGeneration


NUM_LATENTS = 4
HIDDEN_SIZE = 128
OPTIONS = ("left", "middle", "right")


def save_world_checkpoint(folder: Path) -> Path:
    """Write the checkpoint. Its answers are nonsense, but each depends on every latent."""
    words = ["where", "is", "the", "ball", "?", *OPTIONS]
    processor = tiny_processor(words, NUM_LATENTS, frame_pixels=32 * 96)
    set_seed(0)
    model = StormForConditionalGeneration(tiny_config(processor, NUM_LATENTS, latent_scale=0.5))
    enlarge_weights(model.backbone)
    model.config.trained_on = ["world:shuffle"]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_gallery(folder, np.random.default_rng(0).normal(size=(9, HIDDEN_SIZE)))
    return folder


def save_gallery(folder: Path, latents: np.ndarray) -> None:
    """Write a gallery whose entries are called `state 0`, `state 1` and so on."""
    path = folder / GALLERY_FILE
    path.parent.mkdir(exist_ok=True)
    states = np.array([f"state {number}" for number in range(len(latents))])
    np.savez(path, latents=latents.astype(np.float16), states=states)
