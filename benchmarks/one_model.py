"""One model for all worlds: one base, and each variant trained once, on the clips of several worlds at once.

    python benchmarks/one_model.py --worlds shuffle bounce order --seed 0
    python benchmarks/one_model.py --updates 3 --num-train 48      a rehearsal, in which nothing is learned

Frames of all worlds are padded to one canvas, so that a slot keeps every cell and one whitening serves all. There are as many
clips and as many updates as the worlds have alone, in sum; batches mix them. The same command continues.
"""

import argparse
import dataclasses
import platform
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from controls import USE, rehearsal
from rich.console import Console
from variants import plain_variant
from worlds import table

from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, DemoRecipe, Training, Variant, data, demo_recipe
from storm_hf.demo.report_data import read_interventions
from storm_hf.demo.tasks import Report, Task, run_tasks
from storm_hf.demo.training import train_base, train_variant, write_results
from storm_hf.demo.variants import storm_variant
from storm_hf.worlds import WORLD_NAMES, make_world


CANVAS = (48, 64)  # pixels before enlargement: the largest board and the longest row of cups
SHARED = {
    "canvas": CANVAS,
    "frame_pixels": CANVAS[0] * CANVAS[1],
    "target_layout": "concat",
    "whitening_rank": 128,  # all that a latent of the tiny model holds
    "latent_scale": 0.25,
    "rope_theta": 4.0,
    "bottleneck_share": 0.5,
    "teacher_noise": 0.0,
}
RATES = {"base": 2e-3, "align": 2e-3, "answer": 1e-4}


@dataclass(frozen=True)
class Part(DemoFolder):
    """The folder of one world in a mixture. The base is everyone's."""

    recipe: DemoRecipe

    @property
    def base(self) -> Path:
        """Beside the folders of the worlds."""
        return self.path.parent / "base"


@dataclass(frozen=True)
class Mixture(DemoFolder):
    """The folder of a run: what is trained lies here, clips and results lie in those of its worlds."""

    worlds: tuple[Part, ...]

    @property
    def recipe(self) -> DemoRecipe:
        """Check that the training settings are the same in the recipe of each world."""
        return self.worlds[0].recipe

    @property
    def variants(self) -> tuple[Variant, Variant]:
        """Direct answers and STORM, whose latents no page shows."""
        storm = dataclasses.replace(storm_variant(self.recipe), is_shown=False)
        return plain_variant(self.recipe, "direct_equal", "direct"), storm

    @property
    def parts(self) -> list[tuple[DemoFolder, DemoRecipe]]:
        """The folders whose clips are trained on together."""
        return [(part, part.recipe) for part in self.worlds]


def make_mixture(arguments: argparse.Namespace) -> Mixture:
    """Say for each world what is drawn, and for all of them how long is trained."""
    recipes = [demo_recipe(world, arguments.seed) for world in arguments.worlds]
    sums = {name: sum(recipe.trainings[name].num_updates for recipe in recipes) for name in RATES}
    trainings = {name: Training(sums[name], rate) for name, rate in RATES.items()}
    recipes = [dataclasses.replace(recipe, **SHARED, trainings=trainings) for recipe in recipes]
    name = f"{'-'.join(arguments.worlds)}-{arguments.seed}"
    if arguments.updates is not None:
        name += f"-{arguments.updates}-updates"
        recipes = [rehearsal(recipe, arguments.updates, arguments.num_train) for recipe in recipes]
    path = (arguments.out / name).resolve()
    return Mixture(path, tuple(Part(path / recipe.world, recipe) for recipe in recipes))


def see(mixture: Mixture, report: Report) -> None:
    """Teach one base to see all worlds. Worker."""
    train_base(mixture, mixture.recipe, report, mixture.parts)


def learn(mixture: Mixture, variant: Variant, report: Report) -> None:
    """Train a variant on all worlds and test it on each. Worker."""
    waiting = [part for part in mixture.worlds if not part.is_finished(variant.name)]
    if waiting:
        for one in variant.lineage:
            if not mixture.is_trained(one.name):
                train_variant(mixture, mixture.recipe, one, report, mixture.parts)
        for part in waiting:
            write_results(mixture, part, part.recipe, variant)


def stages(mixture: Mixture) -> dict[str, list[Task]]:
    """Stages that run once, in this order; tasks of a stage run in parallel."""
    counts = [data.world_recipe(part.recipe).num_episodes for part in mixture.worlds]
    worlds = [
        (part.recipe.world, count, (part, part.recipe)) for part, count in zip(mixture.worlds, counts, strict=True)
    ]
    encoders = {"thoughts": data.encode_thoughts, "clips": data.encode_clips}
    return {
        "1_render": [
            Task(f"render_{world}", f"Drawing {world}", count, data.render, (*known, 1))
            for world, count, known in worlds
        ],
        "2_base": [Task("base", "Learning to see", mixture.recipe.trainings["base"].num_updates, see, (mixture,))],
        "3_encode": [
            Task(f"{kind}_{world}", f"Encoding {kind} of {world}", count, encode, known)
            for world, count, known in worlds
            for kind, encode in encoders.items()
        ],
        "4_arms": [Task(one.name, one.title, one.num_updates, learn, (mixture, one)) for one in mixture.variants],
    }


def row_of(part: Part, names: tuple[str, ...]) -> list[str]:
    """Tabulate the accuracy of each variant on the deep clips of a world, then what replaced latents do to the last one."""
    results = [read_json(part.variant(name) / "results.json") for name in names]
    chance = make_world(part.recipe.world, **part.recipe.knobs).chance
    values = [
        chance,
        *(one["accuracy"] for one in results),
        *(read_interventions(results[-1]["interventions"])[key] for key in USE.values()),
    ]
    return [part.recipe.world, *(f"{value:.3f}" for value in values)]


def main() -> None:
    """Draw, see, encode, learn; print one row per world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLD_NAMES, default=list(WORLD_NAMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, help="of every training, for a rehearsal in a folder of its own")
    parser.add_argument("--num-train", type=int, default=48, help="clips of each world in a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("runs/one"))
    arguments = parser.parse_args()
    mixture, console = make_mixture(arguments), Console(stderr=True)
    for part in mixture.worlds:
        part.open(part.recipe)
    for stage, tasks in stages(mixture).items():
        mixture.once(stage, partial(run_tasks, tasks, mixture.logs, workers=2, console=console))
    names, titles = zip(*((one.name, one.title) for one in mixture.variants), strict=True)
    out = Console(soft_wrap=True)
    out.print(f"seed {arguments.seed}, {date.today()}, {platform.machine()}\n", markup=False)
    rows = [row_of(part, names) for part in mixture.worlds]
    out.print(table(["world", "chance", *titles, *USE], rows), markup=False)


if __name__ == "__main__":
    main()
