# /// script
# dependencies = ["storm-hf[thoughts]"]
# ///
"""Build a data set of thoughts: questions about clips, with the encoded thought videos that lead to their answers.

    python datasets_builders/storm_thoughts.py --config datasets_builders/recipes/worlds.yaml
    python datasets_builders/storm_thoughts.py --config datasets_builders/recipes/wan.yaml --workers 4

Stop it at any time: the same command goes on where it was. `storm build status DIR` says how far it is, and
`load_dataset(DIR)` opens the result, which `trainers/align.py` trains on. On many machines, with datatrove:

    python datasets_builders/storm_thoughts.py --config RECIPE --tasks 64 --slurm slurm.yaml

where slurm.yaml holds what its SlurmPipelineExecutor takes, such as {partition: gpu, time: "24:00:00", gpus_per_task: 1}. On a
Ray cluster whose nodes share a file system, with Ray Data (pip install 'storm-hf[ray]'):

    RAY_ADDRESS=auto python datasets_builders/storm_thoughts.py --config RECIPE --tasks 64 --ray ray.yaml

where ray.yaml holds what each task takes, such as {num_gpus: 1}.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import yaml
from rich.console import Console
from rich.live import Live

from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe, ThoughtsReport
from storm_hf.builder.datatrove_engine import build_with_datatrove, submit_to_slurm
from storm_hf.builder.ray_engine import build_with_ray
from storm_hf.builder.status import build_status
from storm_hf.builder.status_table import status_table
from storm_hf.builder.workers import build_with_workers
from storm_hf.cli.exits import ends_in_one_line
from storm_hf.errors import DatasetError


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file, see the class ThoughtsRecipe")
    parser.add_argument("--model_name_or_path", help="backbone that encodes, instead of the recipe's")
    parser.add_argument("--output_dir", help="the data set to be, instead of the recipe's")
    parser.add_argument("--workers", type=int, default=1, help="processes of this machine")
    parser.add_argument("--tasks", type=int, help="build with this many tasks of datatrove instead")
    parser.add_argument("--ray", type=Path, help="YAML file with resources of a task: build with tasks of Ray Data")
    parser.add_argument("--slurm", type=Path, help="YAML file with settings of SLURM: submit the tasks there")
    return parser.parse_args()


def build(recipe: ThoughtsRecipe, args: argparse.Namespace, show: Callable[[], None]) -> ThoughtsReport:
    """Build on this machine, in the way that was asked for."""
    if args.ray is not None:
        return build_with_ray(recipe, args.tasks or 1, yaml.safe_load(args.ray.read_text(encoding="utf-8")))
    if args.tasks is not None:
        return build_with_datatrove(recipe, args.tasks)
    if args.workers > 1:
        return build_with_workers(recipe, args.workers, show)
    return ThoughtsBuilder(recipe, on_finished=lambda _: show()).build()


def main(args: argparse.Namespace) -> None:
    """Read the recipe, build, and say what came out."""
    recipe = ThoughtsRecipe.read(args.config, output_dir=args.output_dir, encoder_model=args.model_name_or_path)
    if args.slurm is not None:
        submit_to_slurm(recipe, args.tasks or 1, yaml.safe_load(args.slurm.read_text(encoding="utf-8")))
        return
    console = Console()
    with Live(console=console, refresh_per_second=2) as live:

        def show() -> None:
            try:
                live.update(status_table(build_status(recipe.output_dir)))
            except DatasetError:  # nothing is there to look at yet
                return

        report = build(recipe, args, show)
        show()
    console.print(f"\n{sum(report.num_rows.values())} rows in {recipe.output_dir}: {report.num_rows}")
    rejected = f"{report.num_rejected}; {recipe.output_dir}/rejected.jsonl says why"
    console.print(f"rejected: {rejected if report.num_rejected else 'none'}")


if __name__ == "__main__":
    with ends_in_one_line("storm_thoughts.py"):
        main(parse())
