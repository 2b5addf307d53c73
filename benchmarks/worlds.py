"""All variants on one world, over several seeds: the table of RESULTS.md.

    python benchmarks/worlds.py --world shuffle --seeds 0 1 2

Each seed is a run of `storm demo` in a folder of its own, with three more controls: pause tokens, Stage II alone, and the paper to
the letter. A run that was stopped continues.
"""

import argparse
import platform
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from variants import CONTROLS, controls

from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, demo_recipe, run_demo
from storm_hf.demo.report_data import read_interventions
from storm_hf.demo.tasks import run_tasks
from storm_hf.demo.training import variant_task
from storm_hf.worlds import WORLD_NAMES


VARIANTS = ("direct", *CONTROLS, "chain_of_thought", "terse_chain", "align", "storm")
MEASURES = ("own", "zero", "noise_per_dataset", "mean_over_questions", "oracle", "follows_donor")


def run(world: str, seed: int, out: Path, console: Console) -> dict[str, dict[str, Any]]:
    """Run one seed; return the results of its variants."""
    recipe = demo_recipe(world, seed)
    folder = DemoFolder((out / f"{world}-{seed}").resolve())
    run_demo(folder.path, recipe=recipe, console=console)
    known = controls(recipe)
    tasks = [variant_task(folder, recipe, known[name]) for name in CONTROLS]
    folder.once("6_controls", partial(run_tasks, tasks, folder.logs, workers=2, console=console))
    return {name: read_json(folder.variant(name) / "results.json") for name in VARIANTS}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def variants_table(results: list[dict[str, Any]], seeds: list[int]) -> str:
    """Tabulate the accuracy of each variant on the deep clips, seed by seed."""
    rows = []
    for name in VARIANTS:
        accuracies = [one[name]["accuracy"] for one in results]
        passes = np.mean([one[name]["forward_passes"] for one in results])
        cells = [f"{accuracy:.3f}" for accuracy in accuracies]
        rows.append(
            [name, str(results[0][name]["num_updates"]), *cells, f"{np.mean(accuracies):.3f}", f"{passes:.1f}"]
        )
    return table(["variant", "updates", *(f"seed {seed}" for seed in seeds), "mean", "forward passes"], rows)


def depth_table(results: list[dict[str, Any]]) -> str:
    """Tabulate the accuracy by depth, mean over seeds."""
    depths = list(results[0]["storm"]["by_depth"])
    rows = [
        [name, *(f"{np.mean([one[name]['by_depth'][depth] for one in results]):.3f}" for depth in depths)]
        for name in VARIANTS
    ]
    return table(["variant", *(f"depth {depth}" for depth in depths)], rows)


def latents_table(results: list[dict[str, Any]], seeds: list[int]) -> str:
    """Tabulate interventions and retrieval, seed by seed."""
    storms = [one["storm"] for one in results]
    measured = [read_interventions(storm["interventions"]) for storm in storms]
    rows = [[name, *(f"{one[name]:.3f}" for one in measured)] for name in MEASURES]
    rows.append(["state retrieval, top 1", *(f"{storm['top1_state']:.3f}" for storm in storms)])
    rows.append(["state retrieval, chance", *(f"{storm['retrieval_chance']:.3f}" for storm in storms)])
    return table(["STORM with", *(f"seed {seed}" for seed in seeds)], rows)


def main() -> None:
    """Run all seeds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="shuffle", choices=WORLD_NAMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"))
    arguments = parser.parse_args()
    console = Console(stderr=True)
    results = [run(arguments.world, seed, arguments.out, console) for seed in arguments.seeds]
    out = Console(soft_wrap=True)
    out.print(f"{arguments.world}, seeds {arguments.seeds}, {date.today()}, {platform.machine()}\n", markup=False)
    for text in (
        variants_table(results, arguments.seeds),
        depth_table(results),
        latents_table(results, arguments.seeds),
    ):
        out.print(text + "\n", markup=False)


if __name__ == "__main__":
    main()
