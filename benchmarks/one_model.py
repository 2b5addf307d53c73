"""One model for all worlds: one base, one Stage I and one Stage II on the clips of several worlds at once.

    python benchmarks/one_model.py --worlds shuffle bounce order lattice --seed 0

Frames of all worlds are padded to one canvas, so that a slot keeps every cell and one whitening serves all. A model sees as many
clips of each world as it would alone; batches mix them. What is trained is kept under `--out`, and the same command continues.
"""

import argparse
import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from rich.console import Console
from worlds import table

from storm_hf.align.config import StormAlignConfig
from storm_hf.align.trainer import StormAlignTrainer
from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.trainer import StormAnswerTrainer
from storm_hf.demo import DemoRecipe, data, demo_recipe
from storm_hf.demo.arms import ReportProgress, learn_to_see, train, training_arguments
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import deep_indices, measure_replacements
from storm_hf.demo.recipe import Training
from storm_hf.demo.tasks import Report, Task, run_tasks
from storm_hf.evaluation.answering import accuracy, answer_questions
from storm_hf.training.prompts import PromptEncoder
from storm_hf.worlds import WORLD_NAMES, make_world


CANVAS = (48, 64)  # pixels before enlargement: the largest board and the longest row of cups
RANK = 128  # all that a latent of the tiny model holds
LATENT_SCALE = 0.25
BOTTLENECK_SHARE = 0.5
RATES = {"base": 2e-3, "align": 2e-3, "answer": 1e-4, "direct": 1e-3}
ROLLED_OUT = ("zero", "swap_follows_donor", "without_clip")


class Part(DemoFolder):
    """The folder of one world. The base is everyone's."""

    @property
    def base(self) -> Path:
        """Beside the folders of the worlds."""
        return self.path.parent / "base"


@dataclass(frozen=True)
class Mixture:
    """The worlds of one run, each with its folder and its recipe, and where the shared checkpoints lie."""

    path: Path
    parts: tuple[tuple[Part, DemoRecipe], ...]

    @property
    def recipe(self) -> DemoRecipe:
        """What the worlds share is the same in the recipe of each."""
        return self.parts[0][1]

    def rows(self, split: str, *, with_thoughts: bool) -> Dataset:
        """Rows of all worlds, as columns that all have."""
        rows = [data.dataset(folder, split, with_thoughts=with_thoughts) for folder, _ in self.parts]
        shared = set.intersection(*(set(each.column_names) for each in rows))
        ordered = [name for name in rows[0].column_names if name in shared]
        return concatenate_datasets([each.select_columns(ordered) for each in rows]).with_format("numpy")


def make_mixture(arguments: argparse.Namespace) -> Mixture:
    """Say for each world what is drawn, and for all of them how long is trained."""
    updates = {name: getattr(arguments, f"{name}_updates") for name in RATES}
    shared = {
        "canvas": CANVAS,
        "frame_pixels": CANVAS[0] * CANVAS[1],
        "target_layout": "concat",
        "whitening_rank": RANK,
        "latent_scale": LATENT_SCALE,
        "bottleneck_share": BOTTLENECK_SHARE,
        "trainings": {name: Training(updates[name], rate) for name, rate in RATES.items()},
    }
    if arguments.num_train is not None:
        shared["num_train"] = arguments.num_train
    path = (arguments.out / f"{'-'.join(arguments.worlds)}-{arguments.seed}").resolve()
    recipes = [dataclasses.replace(demo_recipe(world, arguments.seed), **shared) for world in arguments.worlds]
    return Mixture(path, tuple((Part(path / recipe.world), recipe) for recipe in recipes))


def draw(mixture: Mixture, report: Report) -> None:
    """Render every world. Worker."""
    for folder, recipe in mixture.parts:
        folder.open(recipe)
        data.render(folder, recipe, 2, lambda _: None)
        report(recipe.num_train)


def see(mixture: Mixture, report: Report) -> None:
    """Teach one base to see all worlds. Worker."""
    examples = [one for folder, recipe in mixture.parts for one in data.examples_of(folder, recipe)["train"]]
    worlds = [make_world(recipe.world, **recipe.knobs) for _, recipe in mixture.parts]
    words = sorted({word for world in worlds for word in world.vocabulary})
    learn_to_see(mixture.path / "base", mixture.recipe, examples, words, report)


def encode(mixture: Mixture, report: Report) -> None:
    """Encode clips and thought videos of every world. Worker."""
    for folder, recipe in mixture.parts:
        data.encode_thoughts(folder, recipe, lambda _: None)
        data.encode_clips(folder, recipe, lambda _: None)


def learn(mixture: Mixture, report: Report) -> None:
    """Stage I, then Stage II, on all worlds. Worker."""
    disable_progress_bars()
    model, processor = data.load(mixture.path / "base")
    settings = {"whitening_rank": RANK, "target_layout": "concat", "bottleneck_share": BOTTLENECK_SHARE}
    align = StormAlignTrainer(
        model=model,
        args=training_arguments(StormAlignConfig, mixture.path / "align", mixture.recipe, "align", **settings),
        train_dataset=mixture.rows("train", with_thoughts=True),
        processing_class=processor,
        callbacks=[ReportProgress(report)],
    )
    train(align)
    answer = StormAnswerTrainer(
        model=align.model,
        args=training_arguments(
            StormAnswerConfig, mixture.path / "storm", mixture.recipe, "answer", bottleneck_share=BOTTLENECK_SHARE
        ),
        train_dataset=mixture.rows("train", with_thoughts=False),
        processing_class=processor,
        callbacks=[ReportProgress(report, mixture.recipe.trainings["align"].num_updates)],
    )
    train(answer)
    answer.save_model(str(mixture.path / "storm"))
    processor.save_pretrained(mixture.path / "storm")


def learn_direct(mixture: Mixture, report: Report) -> None:
    """The arm that answers at once, on all worlds. Worker."""
    disable_progress_bars()
    model, processor = data.load(mixture.path / "base")
    direct = StormAnswerTrainer(
        model=model,
        args=training_arguments(StormAnswerConfig, mixture.path / "direct", mixture.recipe, "direct", num_latents=0),
        train_dataset=mixture.rows("train", with_thoughts=False),
        processing_class=processor,
        callbacks=[ReportProgress(report)],
    )
    train(direct)
    direct.save_model(str(mixture.path / "direct"))
    processor.save_pretrained(mixture.path / "direct")


def measure(mixture: Mixture) -> list[list[str]]:
    """Test both arms on the deep clips of each world, and replace the latents."""
    storm, direct = data.load(mixture.path / "storm"), data.load(mixture.path / "direct")
    rows = []
    for folder, recipe in mixture.parts:
        tests = list(data.dataset(folder, "test", with_thoughts=False))
        deep = [tests[index] for index in deep_indices(tests, recipe)]
        prompts = PromptEncoder(storm[1], storm[0].config, recipe.num_latents)
        answers = answer_questions(storm[0], prompts, deep, max_new_tokens=4, batch_size=256)
        latents = np.stack([np.asarray(answer.latents) for answer in answers])
        use: dict[str, Any] = measure_replacements(storm[0], prompts, deep, latents, recipe.seed)
        plain = PromptEncoder(direct[1], direct[0].config, 0)
        at_once = accuracy(answer_questions(direct[0], plain, deep, max_new_tokens=4, batch_size=256), deep)
        chance = make_world(recipe.world, **recipe.knobs).chance
        values = chance, at_once, accuracy(answers, deep), *(use[name] for name in ROLLED_OUT)
        rows.append([recipe.world, str(len(deep)), *(f"{value:.3f}" for value in values)])
    return rows


def stages(mixture: Mixture) -> Sequence[tuple[str, list[Task]]]:
    """What is done once, in this order; tasks of a stage run side by side."""
    updates = {name: training.num_updates for name, training in mixture.recipe.trainings.items()}
    both = updates["align"] + updates["answer"]
    clips = sum(recipe.num_train for _, recipe in mixture.parts)
    return [
        ("1_render", [Task("render", "Drawing clips and thought videos", clips, draw, (mixture,))]),
        ("2_base", [Task("base", "Learning to see", updates["base"], see, (mixture,))]),
        ("3_encode", [Task("encode", "Encoding clips and thought videos", clips, encode, (mixture,))]),
        (
            "4_arms",
            [
                Task("storm", "STORM: Stage I, then Stage II", both, learn, (mixture,)),
                Task("direct", "Direct answers", updates["direct"], learn_direct, (mixture,)),
            ],
        ),
    ]


def main() -> None:
    """Draw, see, encode, learn; print one row per world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLD_NAMES, default=list(WORLD_NAMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-updates", type=int, default=1200)
    parser.add_argument("--align-updates", type=int, default=2500)
    parser.add_argument("--answer-updates", type=int, default=400)
    parser.add_argument("--direct-updates", type=int, default=2900)
    parser.add_argument("--num-train", type=int, help="clips of each world, instead of its recipe's")
    parser.add_argument("--out", type=Path, default=Path("runs/one"))
    arguments = parser.parse_args()
    mixture, console = make_mixture(arguments), Console(stderr=True)
    whole = DemoFolder(mixture.path)
    for stage, tasks in stages(mixture):
        whole.once(stage, lambda tasks=tasks: run_tasks(tasks, whole.logs, workers=2, console=console))
    out = Console(soft_wrap=True)
    out.print(f"seed {arguments.seed}, {date.today()}, {platform.machine()}\n", markup=False)
    names = ["latents zeroed", "follows a donor", "without the clip"]
    out.print(table(["world", "clips", "chance", "direct", "STORM", *names], measure(mixture)), markup=False)


if __name__ == "__main__":
    main()
