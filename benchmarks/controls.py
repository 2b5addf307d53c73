"""Ablations of STORM: controls at equal steps and at equal compute, the number of latents, one change at a time.

    python benchmarks/controls.py --world shuffle --seeds 0 1 2
    python benchmarks/controls.py --world shuffle --part latents --num-latents 1 2 4 6 8 12 16 --test-num-latents 2 4 6 8
    python benchmarks/controls.py --world shuffle --part ablations
    python benchmarks/controls.py --world shuffle --updates 4 --num-train 48      a rehearsal, in which nothing is learned

Each seed lives in the folder that `benchmarks/worlds.py` uses: clips, base, and the variants that have been trained are not made
again, and a run that was stopped continues. Equal compute means equal model FLOPs: a variant with shorter sequences gets more
updates. All variants learn at the rates of the recipe. It says how long it will take before it begins.
"""

import argparse
import dataclasses
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from length import checkpoint_of
from rich.console import Console
from variants import changed, controls, flops_per_update, scaled_to
from worlds import table

from storm_hf.align.config import StormAlignConfig
from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, DemoRecipe, Training, Variant, data, demo_recipe, run_variant
from storm_hf.demo.measure import NUM_TIMED, Examinee, deep_indices
from storm_hf.demo.report_data import read_interventions
from storm_hf.demo.stages import prepare
from storm_hf.demo.tasks import Report, Task, run_tasks
from storm_hf.demo.variants import storm_variant
from storm_hf.evaluation.batch import accuracy, measure_cost
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.reporting import write_atomically
from storm_hf.reporting.page import duration
from storm_hf.worlds import WORLD_NAMES


RANKS = (8, 16, 32, 48, 64)
WEIGHTS = (0.3, 1.0, 3.0, 10.0)
SCALES = (0.05, 0.25, 1.0)
RATES = (5e-4, 1e-3, 2e-3)
ANSWER_RATES = (1e-5, 1e-4)
SHARES = (0.0, 0.25, 0.5, 1.0)
NOISES = (0.0, 0.3)
USE = {"latents zeroed": "zero", "follows a donor": "follows_donor", "without the clip": "latents_only"}
SECONDS_PER_UPDATE = 0.3  # where nothing has been measured yet: two variants side by side on two cores
SAME_COST = 0.05  # a variant whose updates cost what STORM's do, but for this share, is not trained twice
WORKERS = 2
BY_NUM_LATENTS = "by_num_latents.json"

Change = Callable[[Any], dict[str, Mapping[str, Any]]]
Sweep = tuple[
    str, str, Sequence[float], float | None, Change
]  # name, title, values, the recipe's own, what a value changes


@dataclass(frozen=True)
class Run:
    """One seed: its folder, its recipe, the variants it needs, and the numbers of latents that each is also tested with."""

    folder: DemoFolder
    recipe: DemoRecipe
    variants: tuple[Variant, ...]
    tested: tuple[int, ...] = ()

    def results(self, name: str) -> dict[str, Any]:
        """Read the results of a variant."""
        other = self.folder.variant(name) / BY_NUM_LATENTS
        return read_json(self.folder.variant(name) / "results.json") | (read_json(other) if other.exists() else {})

    def is_finished(self, name: str) -> bool:
        """Return True if a variant was trained and tested."""
        return self.folder.is_finished(name) and (not self.tested or "by_num_latents" in self.results(name))

    def waiting(self) -> list[Variant]:
        """List the variants that are not finished."""
        return [one for one in self.variants if not self.is_finished(one.name)]


def equal_compute(folder: DemoFolder, recipe: DemoRecipe, variants: Sequence[Variant]) -> list[Variant]:
    """Give the variants whose updates cost other than STORM's, by more than a twentieth, the updates that STORM's FLOPs buy."""
    storm = variants[-1]
    budget = flops_per_update(folder, recipe, storm) * storm.num_updates
    bought = []
    for variant in variants[:-1]:
        num_updates = round(budget / flops_per_update(folder, recipe, variant))
        if abs(num_updates / variant.num_updates - 1) > SAME_COST:
            bought.append(scaled_to(variant, num_updates, f"{variant.name}_compute"))
    return bought


def latent_sweep(recipe: DemoRecipe, counts: Sequence[int]) -> list[Variant]:
    """Make STORM with other numbers of latents."""
    both = [{"num_latents": count} for count in counts]
    return [
        changed(
            storm_variant(recipe),
            f"latents_{fields['num_latents']}",
            f"K = {fields['num_latents']}",
            stage_one=fields,
            stage_two=fields,
        )
        for fields in both
    ]


def ablations(recipe: DemoRecipe) -> list[Variant]:
    """Make STORM with one thing changed. What equals the recipe is STORM itself and is not trained again."""
    storm = storm_variant(recipe)
    sweeps = (*rate_sweeps(storm), *target_sweeps(recipe, storm))
    changes = [
        changed(storm, f"{name}_{value:g}", title.format(value), **change(value))
        for name, title, values, usual, change in sweeps
        for value in values
        if value != usual
    ]
    if recipe.whitening_rank is not None:  # statistics per slot are fitted anew, at a rank that has to be given
        per_slot = {"stage_one": with_settings(storm.start, whitening_statistics="per_slot")}
        changes.append(changed(storm, "per_slot", "statistics per slot", **per_slot))
    step = changed(storm, "step", "latents keep to their step", stage_one={"config": {"latent_attention": "step"}})
    return [*changes, step, storm]


def rate_sweeps(storm: Variant) -> list[Sweep]:
    """Sweep the learning rates and the latent scale."""
    assert storm.start is not None

    def rate(variant: Variant, value: float) -> dict[str, Training]:
        return {"training": dataclasses.replace(variant.training, learning_rate=value)}

    first, second = storm.start, storm
    usual, usual_answer = first.training.learning_rate, second.training.learning_rate
    return [
        ("rate", "learning rate {:g}", RATES, usual, lambda value: {"stage_one": rate(first, value)}),
        (
            "answer_rate",
            "Stage II at {:g}",
            ANSWER_RATES,
            usual_answer,
            lambda value: {"stage_two": rate(second, value)},
        ),
    ]


def target_sweeps(recipe: DemoRecipe, storm: Variant) -> list[Sweep]:
    """Sweep the settings of targets, alignment and rollout."""
    first = storm.start

    def align(name: str) -> Change:
        return lambda value: {"stage_one": with_settings(first, **{name: value})}

    def share(value: float) -> dict[str, Mapping[str, Any]]:
        return {
            "stage_one": with_settings(first, bottleneck_share=value),
            "stage_two": with_settings(storm, bottleneck_share=value),
        }

    def scale(value: float) -> dict[str, Mapping[str, Any]]:
        return {"stage_one": {"config": {"latent_scale": value}}}

    return [
        ("scale", "latent scale {:g}", SCALES, recipe.latent_scale, scale),
        ("rank", "whitening rank {:g}", RANKS, recipe.whitening_rank, align("whitening_rank")),
        ("weight", "align weight {:g}", WEIGHTS, StormAlignConfig.align_weight, align("align_weight")),
        ("share", "bottleneck share {:g}", SHARES, recipe.bottleneck_share, share),
        ("noise", "noise {:g} on the teacher's inputs", NOISES, recipe.teacher_noise, align("teacher_noise")),
    ]


def with_settings(variant: Variant | None, **settings: Any) -> dict[str, Any]:
    """Write the field `settings` of a variant with some of them changed."""
    assert variant is not None
    return {"settings": {**variant.settings, **settings}}


def make_run(arguments: argparse.Namespace, seed: int, console: Console) -> Run:
    """Prepare one seed (clips, base, features) and choose its variants."""
    recipe = demo_recipe(arguments.world, seed)
    if arguments.updates is not None:
        recipe = rehearsal(recipe, arguments.updates, arguments.num_train)
    name = f"{arguments.world}-{seed}" + ("" if arguments.updates is None else f"-{arguments.updates}-updates")
    folder = DemoFolder((arguments.out / name).resolve())
    prepare(folder, recipe, console)
    if arguments.part == "latents":
        tested = tuple(arguments.test_num_latents)
        return Run(folder, recipe, tuple(latent_sweep(recipe, arguments.num_latents)), tested)
    if arguments.part == "ablations":
        return Run(folder, recipe, tuple(ablations(recipe)))
    variants = tuple(controls(recipe).values())
    return Run(folder, recipe, (*variants, *equal_compute(folder, recipe, variants)))


def rehearsal(recipe: DemoRecipe, num_updates: int, num_train: int) -> DemoRecipe:
    """Copy a recipe with few updates and clips."""
    return dataclasses.replace(
        recipe,
        trainings={name: Training(num_updates, one.learning_rate) for name, one in recipe.trainings.items()},
        test_depths={depth: 4 for depth in recipe.test_depths},
        num_train=num_train,
        num_gallery=8,
        num_per_depth=4,
    )


def estimate(runs: Sequence[Run]) -> str:
    """Estimate the time of the updates that are left, as fast as the variants that are finished."""
    left = sum(variant.num_updates for run in runs for variant in run.waiting())
    finished = [run.results(one.name) for run in runs for one in run.variants if one not in run.waiting()]
    updates = sum(one["num_updates"] for one in finished)
    rate = sum(one["train_seconds"] for one in finished) / updates if updates else SECONDS_PER_UPDATE
    source = "as measured here" if updates else "a guess"
    time = duration(left * rate / WORKERS)
    return f"{left} updates are left: about {time} at {rate:.2f} s per update ({source}), two variants side by side."


def task_of(run: Run, variant: Variant) -> Task:
    """Make the work of a variant. STORM is the demo's own, so that whichever command comes first trains it for both."""
    return Task(variant.name, variant.title, variant.num_updates, train_and_test, (run, variant))


def train_and_test(run: Run, variant: Variant, report: Report) -> None:
    """Train and test a variant, also with numbers of latents that it was not trained with. Worker."""
    run_variant(run.folder, run.recipe, variant, report)
    if run.is_finished(variant.name):
        return
    model, processor = data.load(run.folder.checkpoint(variant.name))
    tests = list(data.dataset(run.folder, "test", with_thoughts=False))
    deep = [tests[index] for index in deep_indices(tests, run.recipe)]
    found = {}
    for count in run.tested:
        examinee = Examinee(model, PromptEncoder(processor, model.config, count))
        found[str(count)] = accuracy(examinee.answer(deep), deep)
    text = json.dumps({"by_num_latents": found}) + "\n"
    write_atomically(run.folder.variant(variant.name) / BY_NUM_LATENTS, text)


def accuracy_cells(runs: Sequence[Run], name: str) -> list[str]:
    """Accuracy on the deep clips: each seed and their mean, or a dash where this seed has no such variant."""
    names = [{one.name for one in run.variants} for run in runs]
    values = [run.results(name)["accuracy"] if name in known else None for run, known in zip(runs, names, strict=True)]
    known_values = [value for value in values if value is not None]
    return ["-" if value is None else f"{value:.3f}" for value in values] + [f"{np.mean(known_values):.3f}"]


def use_cells(runs: Sequence[Run], name: str) -> list[str]:
    """Average the interventions over seeds; a dash where a variant has no latents."""
    results = [run.results(name) for run in runs if name in {one.name for one in run.variants}]
    found = [read_interventions(one.get("interventions", {})) for one in results]
    return [
        f"{np.mean([one[key] for one in found]):.3f}" if all(key in one for one in found) else "-"
        for key in USE.values()
    ]


def controls_table(runs: Sequence[Run]) -> str:
    """Tabulate one row per variant and budget."""
    rows = []
    for variant in runs[0].variants:
        results = runs[0].results(variant.name)
        budget = "compute" if variant.name.endswith("_compute") else "updates"
        cells = *accuracy_cells(runs, variant.name), *use_cells(runs, variant.name)
        rows.append([variant.title, budget, str(variant.num_updates), *cells, f"{results['forward_passes']:.1f}"])
    rows.sort(key=lambda row: row[1], reverse=True)
    return table(["variant", "equal", "updates", *_seeds(runs), "mean", *USE, "forward passes"], rows)


def sweep_table(runs: Sequence[Run], tested: Sequence[int]) -> str:
    """Tabulate one row per variant; with other numbers of latents at test time, the mean over seeds."""
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
    """Tabulate the time of an answer with each number of latents, relative to the first. All answer each question in turn."""
    rows = list(data.dataset(run.folder, "test", with_thoughts=False))[:NUM_TIMED]
    models = []
    for variant in run.variants:
        model, processor = data.load(checkpoint_of(run.folder, variant.name))
        models.append((model, PromptEncoder(processor, model.config, variant.num_latents)))
    seconds = [[measure_cost(*one, [row], max_new_tokens=4).seconds for one in models] for row in rows]
    medians = np.median(seconds, axis=0)
    ratios = [f"{value:.2f}" for value in medians / medians[0]]
    return table(["", *(variant.title for variant in run.variants)], [["time of an answer", *ratios]])


def depths_table(runs: Sequence[Run]) -> str:
    """Tabulate the accuracy on the first clips of each depth, mean over seeds."""
    depths = sorted(runs[0].recipe.test_depths)
    rows = []
    for variant in runs[0].variants:
        known = [run for run in runs if variant.name in {one.name for one in run.variants}]
        found = [run.results(variant.name)["by_depth"] for run in known]
        rows.append([variant.title, *(f"{np.mean([one[str(depth)] for one in found]):.3f}" for depth in depths)])
    return table(["variant, first clips of each depth", *map(str, depths)], rows)


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
    parser.add_argument("--variants", nargs="+", help="names of those to train and show, instead of all of the part")
    parser.add_argument("--updates", type=int, help="of every training, for a rehearsal in a folder of its own")
    parser.add_argument("--num-train", type=int, default=48, help="clips of a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"))
    arguments = parser.parse_args()
    console = Console(stderr=True)
    runs = [make_run(arguments, seed, console) for seed in arguments.seeds]
    known = {variant.name for run in runs for variant in run.variants}
    if unknown := sorted({*(arguments.variants or ())} - known):
        parser.error(f"no variant is called {', '.join(unknown)}; this part has {', '.join(sorted(known))}")
    if arguments.variants:
        runs = [
            dataclasses.replace(run, variants=tuple(one for one in run.variants if one.name in arguments.variants))
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
