"""Tiny STORMs that Stage I has really trained, in seconds: cups that swap, and a backbone that never learned to see.

Everything is the demo's own, made small. A random vision tower tells the few pictures of this world apart, so that no base has to
be taught; what is to be learned is to follow the ball, which four swaps hide from whoever does not think step by step. Two
pupils differ in nothing but their targets.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import ProcessorMixin, set_seed

from storm_hf import StormAlignConfig, StormAlignTrainer
from storm_hf.demo import DemoFolder, data, demo_recipe
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.demo.recipe import DemoRecipe, Training
from storm_hf.demo.training import training_arguments
from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.questions import Questions
from storm_hf.diagnostics.record import Diagnosis
from storm_hf.model import StormForConditionalGeneration
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.worlds import make_world


NUM_SWAPS = 4
NUM_TESTED = 256


@dataclass(frozen=True, eq=False)
class Pupil:
    """A trained model, what it was aligned to, and the last thing that its training logged."""

    model: StormForConditionalGeneration
    processor: ProcessorMixin
    trajectory: TargetTrajectory
    log: dict[str, float]


def small_recipe(seed: int = 0) -> DemoRecipe:
    """The demo's `shuffle` with a swap in each of four steps."""
    return dataclasses.replace(
        demo_recipe("shuffle", seed),
        knobs={"num_steps": NUM_SWAPS, "min_swaps": NUM_SWAPS, "max_swaps": NUM_SWAPS},
        test_depths={NUM_SWAPS: NUM_TESTED},
        trainings={"align": Training(num_updates=160, learning_rate=2e-3)},
        num_train=512,
        num_gallery=1,
        batch_size=32,
        num_latents=NUM_SWAPS,
    )


def prepare(path: Path, recipe: DemoRecipe) -> DemoFolder:
    """Write a random base, the videos, and their features."""
    folder = DemoFolder(path)
    world = make_world(recipe.world, **recipe.knobs)
    processor = tiny_processor(world.vocabulary, recipe.num_latents, recipe.frame_pixels)
    set_seed(recipe.seed)
    StormForConditionalGeneration(tiny_config(processor, recipe.num_latents)).save_pretrained(folder.base)
    processor.save_pretrained(folder.base)
    data.render(folder, recipe, workers=1, report=_say_nothing)
    data.encode_thoughts(folder, recipe, _say_nothing)
    data.encode_clips(folder, recipe, _say_nothing)
    return folder


def teach(folder: DemoFolder, recipe: DemoRecipe, normalize: str) -> Pupil:
    """Train Stage I on `"whiten"`ed targets, or on naive ones, `"layernorm"`."""
    model, processor = data.load(folder.base)
    settings = {"target_normalize": normalize, "whitening_rank": recipe.whitening_rank}
    trainer = StormAlignTrainer(
        model=model,
        args=training_arguments(
            StormAlignConfig, folder.variant(normalize), recipe, recipe.trainings["align"], **settings
        ),
        train_dataset=data.dataset(folder, "train", with_thoughts=True),
        processing_class=processor,
    )
    trainer.train()
    log = next(entry for entry in reversed(trainer.state.log_history) if "latent_cosine" in entry)
    return Pupil(trainer.model, processor, trainer.target_trajectory, log)


def examine(pupil: Pupil, rows: Dataset, recipe: DemoRecipe) -> Diagnosis:
    """`storm diagnose` on rows that it was not trained on."""
    asked = list(rows)
    targets = pupil.trajectory([np.asarray(row["thought_features"]) for row in asked]).numpy()
    states = np.array([[str(state) for state in row["states"]] for row in asked])
    world = make_world(recipe.world, **recipe.knobs)
    return diagnose(pupil.model, pupil.processor, Questions(asked, targets, states, world, {}), batch_size=NUM_TESTED)


def _say_nothing(finished: int) -> None:
    pass
