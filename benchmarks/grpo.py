"""Reinforcement on latents, against Stage II from the same weights.

    python benchmarks/grpo.py --part accuracy --seeds 0 1 2    # `shuffle`, from a Stage I that was stopped half way
    python benchmarks/grpo.py --part use --seeds 0 1 2         # `order` without a bottleneck, by the reward of use
    python benchmarks/grpo.py --part accuracy --seeds 0 --temperature 1 --rate-factor 0.33 --lengths 1
    python benchmarks/grpo.py --part accuracy --seeds 0 --scale 0.1    # a rehearsal, with a tenth of all updates and clips

`accuracy` compares rewards for correct answers with as many updates of Stage II, and with Stage II of as many forward passes: a
roll-out reads its rows once more than an update does. `reinforcement x 3` has three times as many updates. `use` begins with STORM trained without the bottleneck, whose answers may come
from the clip alone, and rewards correct answers and answers that follow the latents of a donor. *Steered* answers become the
donor's, beyond those that were so already.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from worlds import table

from storm_hf import StormForConditionalGeneration, StormGRPOConfig, StormGRPOTrainer
from storm_hf.demo import DemoFolder, DemoRecipe, Training, Variant, data, demo_recipe
from storm_hf.demo.stages import prepare
from storm_hf.demo.training import train_variant
from storm_hf.demo.variants import storm_variant
from storm_hf.evaluation.batch import accuracy, answer_questions, expected_choice
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.interventions import choose_donors, make_intervention
from storm_hf.target_trajectory.trajectory import TargetTrajectory


WORLDS = {"accuracy": "shuffle", "use": "order"}
REWARDS = {"accuracy": ["correct_answer"], "use": ["correct_answer", "donor_answer"]}
NUM_GENERATIONS = 8
STEPS_PER_GENERATION = 4  # updates on one set of roll-outs, so that a clip finds donors that were asked the same
PASSES_OF_AN_UPDATE = 2  # of GRPO, in units of those of Stage II: the roll-out, and the step on it


@dataclass(frozen=True)
class Sampling:
    """Settings of reinforcement that the benchmark varies.

    Args:
        temperature (`float`):
            Of the answers. A model that is sure of its first ones needs one above 1.
        rate_factor (`float`):
            Learning rate, in units of that of Stage II.
        latent_noise (`float`):
            Noise on each latent, as a share of its size.
        lengths (`list[int]`):
            Numbers of updates, in units of those of Stage II.
    """

    temperature: float
    rate_factor: float
    latent_noise: float
    lengths: Sequence[int]

    def folder(self, length: int) -> str:
        """Name a run by its settings."""
        return f"grpo-{self.temperature:g}-{self.rate_factor:g}-{self.latent_noise:g}-{length}"


@dataclass(frozen=True)
class Outcome:
    """Accuracy on deep test clips, and the share of answers that a donor's latents steer."""

    accuracy: float
    steered: float


def recipe_of(part: str, seed: int, scale: float) -> DemoRecipe:
    """Make the demo's recipe with a share of its updates and clips; without a bottleneck for `use`."""
    recipe = demo_recipe(WORLDS[part], seed)
    trainings = {
        name: Training(max(round(scale * one.num_updates), 1), one.learning_rate)
        for name, one in recipe.trainings.items()
    }
    depths = {depth: max(round(scale * count), 4) for depth, count in recipe.test_depths.items()}
    return dataclasses.replace(
        recipe,
        trainings=trainings,
        test_depths=depths,
        num_train=max(round(scale * recipe.num_train), recipe.batch_size),
        bottleneck_share=0.0,
    )


def begin(part: str, folder: DemoFolder, recipe: DemoRecipe) -> Variant:
    """Train what reinforcement starts from: half of Stage I, or all of STORM."""
    storm = storm_variant(recipe)
    assert storm.start is not None
    train_once(folder, recipe, half_of(storm.start) if part == "accuracy" else storm.start)
    if part == "use":
        train_once(folder, recipe, storm)
    return storm


def half_of(variant: Variant) -> Variant:
    """Copy a variant with half of its updates."""
    training = Training(max(variant.training.num_updates // 2, 1), variant.training.learning_rate)
    return dataclasses.replace(variant, training=training)


def train_once(folder: DemoFolder, recipe: DemoRecipe, variant: Variant) -> None:
    """Train a variant, unless its model is there."""
    if not (folder.checkpoint(variant.name) / "config.json").exists():
        train_variant(folder, recipe, variant, lambda done: None)


def reinforce(part: str, folder: DemoFolder, recipe: DemoRecipe, start: Path, sampling: Sampling, length: int) -> Path:
    """Train by rewards from a checkpoint, and return where the model was saved."""
    output, stage_two = folder.variant(sampling.folder(length)), recipe.trainings["answer"]
    if (output / "config.json").exists():
        return output
    model, processor = data.load(start)
    trainer = StormGRPOTrainer(
        model=model,
        args=StormGRPOConfig(
            str(output),
            rewards=REWARDS[part],
            donor_share=0.5 if part == "use" else 0.0,
            max_steps=length * stage_two.num_updates,
            num_generations=NUM_GENERATIONS,
            steps_per_generation=STEPS_PER_GENERATION,
            per_device_train_batch_size=recipe.batch_size,
            max_completion_length=4,
            temperature=sampling.temperature,
            latent_noise=sampling.latent_noise,
            learning_rate=sampling.rate_factor * stage_two.learning_rate,
            lr_scheduler_type="constant",
            adam_beta2=0.98,
            seed=recipe.seed,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            logging_steps=10,
            save_steps=100,
            save_total_limit=1,
            report_to="none",
        ),
        train_dataset=data.dataset(folder, "train", with_thoughts=False),
        processing_class=processor,
        target_trajectory=TargetTrajectory.load(folder.variant("align")),
    )
    trainer.train(resume_from_checkpoint=True)
    trainer.save_model()
    return output


def measure(folder: DemoFolder, recipe: DemoRecipe, checkpoint: Path) -> Outcome:
    """Answer the deep test clips, with the own latents and with those of donors."""
    model, processor = data.load(checkpoint)
    rows = [row for row in data.dataset(folder, "test", with_thoughts=False) if int(row["depth"]) in recipe.deep]
    prompts = PromptEncoder(processor, model.config, recipe.num_latents)
    answers = answer_questions(model, prompts, rows, max_new_tokens=4)
    return Outcome(accuracy(answers, rows), steered_share(model, prompts, rows, answers))


def steered_share(
    model: StormForConditionalGeneration, prompts: PromptEncoder, rows: Sequence[dict], answers: Sequence
) -> float:
    """Share of answers that become the donor's, of those that were not already."""
    donors = choose_donors(rows)
    latents = np.stack([answer.latents for answer in answers])
    given = make_intervention("donor", latents, donors=donors)
    steered = answer_questions(model, prompts, rows, max_new_tokens=4, intervene=given)
    expected = [expected_choice(rows[donor]) for donor in donors]
    counted = [place for place, answer in enumerate(answers) if answer.choice != expected[place]]
    return float(np.mean([steered[place].choice == expected[place] for place in counted]))


def run(part: str, seed: int, scale: float, sampling: Sampling, out: Path, console: Console) -> dict[str, Outcome]:
    """Train and measure one seed."""
    recipe = recipe_of(part, seed, scale)
    folder = DemoFolder((out / f"{part}-{seed}-{scale:g}").resolve())
    prepare(folder, recipe, console)
    storm = begin(part, folder, recipe)
    start = folder.checkpoint("align" if part == "accuracy" else "storm")
    num_updates = recipe.trainings["answer"].num_updates
    checkpoints = {"start": start}
    for length in sampling.lengths:
        checkpoints[f"reinforcement x {length}"] = reinforce(part, folder, recipe, start, sampling, length)
    for name, factor in (("stage_two", 1), ("stage_two_passes", PASSES_OF_AN_UPDATE)):
        training = Training(factor * num_updates, recipe.trainings["answer"].learning_rate)
        variant = dataclasses.replace(storm, name=name, training=training)
        if part == "use":
            variant = dataclasses.replace(variant, start=storm)
        train_once(folder, recipe, variant)
        checkpoints[name] = folder.checkpoint(name)
    return {name: measure(folder, recipe, checkpoint) for name, checkpoint in checkpoints.items()}


def main() -> None:
    """Train what is missing and print one row for each seed and training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="accuracy", choices=WORLDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="share of all updates and clips")
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--rate-factor", type=float, default=1.0, help="learning rate, in units of that of Stage II")
    parser.add_argument("--latent-noise", type=float, default=0.1)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[1, 3], help="updates, in units of those of Stage II"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/grpo"))
    arguments = parser.parse_args()
    sampling = Sampling(arguments.temperature, arguments.rate_factor, arguments.latent_noise, arguments.lengths)
    console, out = Console(stderr=True), Console(soft_wrap=True)
    rows = [
        [str(seed), name, f"{outcome.accuracy:.3f}", f"{outcome.steered:.3f}"]
        for seed in arguments.seeds
        for name, outcome in run(arguments.part, seed, arguments.scale, sampling, arguments.out, console).items()
    ]
    out.print(table(["seed", "training", "accuracy", "steered"], rows), markup=False)


if __name__ == "__main__":
    main()
