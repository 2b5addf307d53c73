"""Ablations of STORM: controls at equal steps and at equal compute, the number of latents, one change at a time.

    python benchmarks/controls.py --world shuffle --seeds 0 1 2
    python benchmarks/controls.py --world shuffle --part latents --num-latents 1 2 4 6 8 12 16 --test-num-latents 2 4 6 8
    python benchmarks/controls.py --world shuffle --part ablations
    python benchmarks/controls.py --world shuffle --updates 4 --num-train 48      a rehearsal, in which nothing is learned

Each seed lives in the folder that `benchmarks/worlds.py` uses: clips, base, and the arms that have been trained are not made again,
and a run that was stopped continues. Equal compute means equal model FLOPs: an arm with shorter sequences gets more updates.
All arms learn at the rates of the recipe. It says how long it will take before it begins.
"""

import argparse
import dataclasses
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from length import checkpoint_of
from rich.console import Console
from worlds import table

from storm_hf.align.config import StormAlignConfig
from storm_hf.demo import DemoRecipe, data, demo_recipe
from storm_hf.demo.arms import run_storm
from storm_hf.demo.controls import naive_variant, paper_variant, plain_variant, storm_variant
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import NUM_TIMED
from storm_hf.demo.recipe import Training
from storm_hf.demo.record import read_interventions
from storm_hf.demo.stages import prepare
from storm_hf.demo.tasks import Task, run_tasks
from storm_hf.demo.variants import Variant, flops_per_update, variant_task
from storm_hf.evaluation.cost import measure_cost
from storm_hf.reporting.page import duration
from storm_hf.training.prompts import PromptEncoder
from storm_hf.worlds import WORLD_NAMES
from storm_hf.writing import read_json


RANKS = (8, 16, 32, 48, 64)
WEIGHTS = (0.3, 1.0, 3.0, 10.0)
SCALES = (0.05, 0.25, 1.0)
RATES = (5e-4, 1e-3, 2e-3)
ANSWER_RATES = (1e-5, 1e-4)
SHARES = (0.0, 0.25, 0.5, 1.0)
NOISES = (0.0, 0.3)
USE = {"latents zeroed": "zero", "follows a donor": "follows_donor", "without the clip": "latents_only"}
SECONDS_PER_UPDATE = 0.3  # where nothing has been measured yet: two arms side by side on two cores
SAME_COST = 0.05  # an arm whose updates cost what STORM's do, but for this share, is not trained twice
WORKERS = 2


@dataclass(frozen=True)
class Run:
    """One seed: its folder, its recipe, and the arms it needs."""

    folder: DemoFolder
    recipe: DemoRecipe
    variants: tuple[Variant, ...]

    def results(self, name: str) -> dict[str, Any]:
        """Results of an arm."""
        return read_json(self.folder.arm(name) / "results.json")

    def waiting(self) -> list[Variant]:
        """Arms that are not finished."""
        return [one for one in self.variants if not (self.folder.arm(one.name) / "results.json").exists()]


def controls(recipe: DemoRecipe) -> list[Variant]:
    """Every arm with STORM's number of updates."""
    storm = storm_variant(recipe)
    return [
        plain_variant(recipe, "direct_equal", "direct", "none"),
        plain_variant(recipe, "pause", "pause tokens", "pause"),
        plain_variant(recipe, "markers", "markers only", "markers"),
        plain_variant(recipe, "answer_only", "Stage II only", "latents"),
        dataclasses.replace(
            storm, name="align_only", title="Stage I only", align_updates=storm.num_updates, answer_updates=0
        ),
        naive_variant(recipe),
        paper_variant(recipe),
        plain_variant(recipe, "terse_equal", "text, terse", "none", "terse_chain"),
        plain_variant(recipe, "verbose_equal", "text, verbose", "none", "chain_of_thought"),
        storm,
    ]


def equal_compute(folder: DemoFolder, recipe: DemoRecipe, variants: Sequence[Variant]) -> list[Variant]:
    """The arms whose updates cost other than STORM's, by more than a twentieth, with the updates that STORM's FLOPs buy."""
    storm = variants[-1]
    budget = flops_per_update(folder, recipe, storm) * storm.num_updates
    bought = []
    for variant in variants[:-1]:
        num_updates = round(budget / flops_per_update(folder, recipe, variant))
        if abs(num_updates / variant.num_updates - 1) > SAME_COST:
            bought.append(dataclasses.replace(variant.scaled_to(num_updates), name=f"{variant.name}_compute"))
    return bought


def latent_sweep(recipe: DemoRecipe, counts: Sequence[int], tested: Sequence[int]) -> list[Variant]:
    """STORM with other numbers of latents, each tested also with numbers that it was not trained with."""
    storm = storm_variant(recipe)
    return [
        dataclasses.replace(
            storm, name=f"latents_{count}", title=f"K = {count}", num_latents=count, test_num_latents=tuple(tested)
        )
        for count in counts
    ]


def ablations(recipe: DemoRecipe) -> list[Variant]:
    """STORM with one thing changed. What equals the recipe is STORM itself and is not trained again."""
    storm = storm_variant(recipe)

    def align(**changed: Any) -> dict[str, Any]:
        return {"align": {**storm.align, **changed}}

    sweeps: list[tuple[str, str, Sequence[float], float | None, Callable[[float], dict[str, Any]]]] = [
        ("scale", "latent scale {:g}", SCALES, recipe.latent_scale, lambda value: {"latent_scale": value}),
        ("rate", "learning rate {:g}", RATES, storm.align_rate, lambda value: {"align_rate": value}),
        ("answer_rate", "Stage II at {:g}", ANSWER_RATES, storm.answer_rate, lambda value: {"answer_rate": value}),
        ("rank", "whitening rank {:g}", RANKS, recipe.whitening_rank, lambda value: align(whitening_rank=value)),
        (
            "weight",
            "align weight {:g}",
            WEIGHTS,
            StormAlignConfig.align_weight,
            lambda value: align(align_weight=value),
        ),
        ("share", "bottleneck share {:g}", SHARES, storm.bottleneck_share, lambda value: {"bottleneck_share": value}),
        (
            "noise",
            "noise {:g} on the teacher's inputs",
            NOISES,
            recipe.teacher_noise,
            lambda value: align(teacher_noise=value),
        ),
    ]
    changes = [
        dataclasses.replace(storm, name=f"{name}_{value:g}", title=title.format(value), **change(value))
        for name, title, values, usual, change in sweeps
        for value in values
        if value != usual
    ]
    if recipe.whitening_rank is not None:  # statistics per slot are fitted anew, at a rank that has to be given
        per_slot = align(whitening_statistics="per_slot")
        changes.append(dataclasses.replace(storm, name="per_slot", title="statistics per slot", **per_slot))
    step = dataclasses.replace(storm, name="step", title="latents keep to their step", latent_attention="step")
    return [*changes, step, storm]


def make_run(arguments: argparse.Namespace, seed: int, console: Console) -> Run:
    """Prepare one seed (clips, base, features) and say which arms it needs."""
    recipe = demo_recipe(arguments.world, seed)
    if arguments.updates is not None:
        recipe = rehearsal(recipe, arguments.updates, arguments.num_train)
    name = f"{arguments.world}-{seed}" + ("" if arguments.updates is None else f"-{arguments.updates}-updates")
    folder = DemoFolder((arguments.out / name).resolve())
    prepare(folder, recipe, console)
    if arguments.part == "latents":
        return Run(folder, recipe, tuple(latent_sweep(recipe, arguments.num_latents, arguments.test_num_latents)))
    if arguments.part == "ablations":
        return Run(folder, recipe, tuple(ablations(recipe)))
    variants = controls(recipe)
    return Run(folder, recipe, (*variants, *equal_compute(folder, recipe, variants)))


def rehearsal(recipe: DemoRecipe, num_updates: int, num_train: int) -> DemoRecipe:
    """The recipe with few updates and clips."""
    return dataclasses.replace(
        recipe,
        trainings={name: Training(num_updates, one.learning_rate) for name, one in recipe.trainings.items()},
        test_depths={depth: 4 for depth in recipe.test_depths},
        num_train=num_train,
        num_gallery=8,
        num_per_depth=4,
    )


def estimate(runs: Sequence[Run]) -> str:
    """Say how many updates are left and how long they take, as fast as the arms that are finished."""
    left = sum(variant.num_updates for run in runs for variant in run.waiting())
    finished = [run.results(one.name) for run in runs for one in run.variants if one not in run.waiting()]
    updates = sum(one["num_updates"] for one in finished)
    rate = sum(one["train_seconds"] for one in finished) / updates if updates else SECONDS_PER_UPDATE
    source = "as measured here" if updates else "a guess"
    time = duration(left * rate / WORKERS)
    return f"{left} updates are left: about {time} at {rate:.2f} s per update ({source}), two arms side by side."


def task_of(run: Run, variant: Variant) -> Task:
    """The work of an arm. STORM itself is the demo's own arm, so that whichever command comes first trains it for both."""
    if variant.name == "storm":
        return Task(variant.name, variant.title, variant.num_updates, run_storm, (run.folder, run.recipe))
    return variant_task(run.folder, run.recipe, variant)


def accuracy_cells(runs: Sequence[Run], name: str) -> list[str]:
    """Accuracy on the deep clips: each seed and their mean, or a dash where this seed has no such arm."""
    names = [{one.name for one in run.variants} for run in runs]
    values = [run.results(name)["accuracy"] if name in known else None for run, known in zip(runs, names, strict=True)]
    known_values = [value for value in values if value is not None]
    return ["-" if value is None else f"{value:.3f}" for value in values] + [f"{np.mean(known_values):.3f}"]


def use_cells(runs: Sequence[Run], name: str) -> list[str]:
    """Are the latents used? Mean over seeds under interventions; a dash where an arm has no latents."""
    results = [run.results(name) for run in runs if name in {one.name for one in run.variants}]
    found = [read_interventions(one.get("interventions", {})) for one in results]
    return [
        f"{np.mean([one[key] for one in found]):.3f}" if all(key in one for one in found) else "-"
        for key in USE.values()
    ]


def controls_table(runs: Sequence[Run]) -> str:
    """One row per arm and budget."""
    rows = []
    for variant in runs[0].variants:
        results = runs[0].results(variant.name)
        budget = "compute" if variant.name.endswith("_compute") else "updates"
        cells = *accuracy_cells(runs, variant.name), *use_cells(runs, variant.name)
        rows.append([variant.title, budget, str(variant.num_updates), *cells, f"{results['forward_passes']:.1f}"])
    rows.sort(key=lambda row: row[1], reverse=True)
    return table(["arm", "equal", "updates", *_seeds(runs), "mean", *USE, "forward passes"], rows)


def sweep_table(runs: Sequence[Run], tested: Sequence[int]) -> str:
    """One row per arm; with other numbers of latents at test time, the mean over seeds."""
    rows = []
    for variant in runs[0].variants:
        results = [run.results(variant.name) for run in runs]
        others = [
            f"{np.mean([one['by_num_latents'][str(count)] for one in results]):.3f}"
            if str(count) in results[0].get("by_num_latents", {})
            else "-"
            for count in tested
        ]
        passes = np.mean([one["forward_passes"] for one in results])
        cells = *accuracy_cells(runs, variant.name), *use_cells(runs, variant.name)
        rows.append([variant.title, *cells, f"{passes:.1f}", *others])
    head = ["trained with", *_seeds(runs), "mean", *USE, "forward passes"]
    return table([*head, *(f"tested with K = {count}" for count in tested)], rows)


def latency_table(run: Run) -> str:
    """Time of an answer with each number of latents, relative to the first of them. Each question is asked of all in turn."""
    rows = list(data.dataset(run.folder, "test", with_thoughts=False))[:NUM_TIMED]
    arms = []
    for variant in run.variants:
        model, processor = data.load(checkpoint_of(run.folder, variant.name))
        arms.append((model, PromptEncoder(processor, model.config, variant.num_latents)))
    seconds = [[measure_cost(*arm, [row], max_new_tokens=4).seconds for arm in arms] for row in rows]
    medians = np.median(seconds, axis=0)
    ratios = [f"{value:.2f}" for value in medians / medians[0]]
    return table(["", *(variant.title for variant in run.variants)], [["time of an answer", *ratios]])


def depths_table(runs: Sequence[Run]) -> str:
    """Accuracy on the first clips of each depth, mean over seeds."""
    depths = sorted(runs[0].recipe.test_depths)
    rows = []
    for variant in runs[0].variants:
        known = [run for run in runs if variant.name in {one.name for one in run.variants}]
        found = [run.results(variant.name)["by_depth"] for run in known]
        rows.append([variant.title, *(f"{np.mean([one[str(depth)] for one in found]):.3f}" for depth in depths)])
    return table(["arm, first clips of each depth", *map(str, depths)], rows)


def _seeds(runs: Sequence[Run]) -> list[str]:
    return [f"seed {run.recipe.seed}" for run in runs]


def main() -> None:
    """Prepare, estimate, train what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="shuffle", choices=WORLD_NAMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="controls", choices=("controls", "latents", "ablations"))
    parser.add_argument("--num-latents", type=int, nargs="+", default=[1, 2, 4, 6, 8, 12, 16])
    parser.add_argument("--test-num-latents", type=int, nargs="*", default=[2, 4, 6, 8, 12])
    parser.add_argument("--arms", nargs="+", help="names of the arms to train and show, instead of all of the part")
    parser.add_argument("--updates", type=int, help="of every training, for a rehearsal in a folder of its own")
    parser.add_argument("--num-train", type=int, default=48, help="clips of a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"))
    arguments = parser.parse_args()
    console = Console(stderr=True)
    runs = [make_run(arguments, seed, console) for seed in arguments.seeds]
    known = {variant.name for run in runs for variant in run.variants}
    if unknown := sorted({*(arguments.arms or ())} - known):
        parser.error(f"no arm is called {', '.join(unknown)}; this part has {', '.join(sorted(known))}")
    if arguments.arms:
        runs = [
            dataclasses.replace(run, variants=tuple(one for one in run.variants if one.name in arguments.arms))
            for run in runs
        ]
    console.print(estimate(runs))
    for run in runs:
        tasks = [task_of(run, variant) for variant in run.waiting()]
        run_tasks(tasks, run.folder.logs, workers=WORKERS, console=console)
    out = Console(soft_wrap=True)
    out.print(f"{arguments.world}, seeds {arguments.seeds}, {date.today()}, {platform.machine()}\n", markup=False)
    tested = arguments.test_num_latents if arguments.part == "latents" else []
    out.print(controls_table(runs) if arguments.part == "controls" else sweep_table(runs, tested), markup=False)
    out.print(f"\n{depths_table(runs)}", markup=False)
    if arguments.part == "latents":
        out.print(f"\n{latency_table(runs[0])}", markup=False)


if __name__ == "__main__":
    main()
