"""Build a data set of thoughts from a procedural world: real video files, encoded thought videos, whitening.

    python datasets_builders/storm_worlds.py --config datasets_builders/recipes/shuffle_tiny.yaml \
        --model_name_or_path runs/base --output_dir data/shuffle

Stop it at any time: the same command goes on where it was. `load_dataset("data/shuffle")` opens the result.
"""

import argparse
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import Progress
from transformers import AutoModelForImageTextToText, AutoProcessor

from storm_hf.cli.errors import ends_in_one_line
from storm_hf.target_trajectory import TargetSettings, build_thoughts
from storm_hf.thought_video import WorldRecipe, render_world


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file: world, knobs, splits, seed, targets")
    parser.add_argument("--model_name_or_path", required=True, help="backbone whose frozen vision tower encodes")
    parser.add_argument("--output_dir", required=True, type=Path, help="the data set to be")
    parser.add_argument("--seed", type=int, help="base seed, instead of the recipe's")
    parser.add_argument("--rank", help="principal components to keep, or auto; instead of the recipe's")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Render, encode, whiten."""
    config = yaml.safe_load(Path(args.config).read_text(encoding="utf-8"))
    if args.seed is not None:
        config["seed"] = args.seed
    if args.rank is not None:
        config["targets"]["rank"] = args.rank if args.rank == "auto" else int(args.rank)
    recipe, settings = WorldRecipe.from_dict(config), TargetSettings(**config["targets"])
    console = Console()

    with Progress(console=console) as progress:
        rendering = progress.add_task("Rendering videos", total=recipe.num_episodes)
        examples = render_world(
            recipe, args.output_dir, workers=args.workers, on_finished=lambda _: progress.advance(rendering)
        )

    model = AutoModelForImageTextToText.from_pretrained(args.model_name_or_path)
    processor = AutoProcessor.from_pretrained(args.model_name_or_path)
    with console.status("Encoding thought videos"):
        report = build_thoughts(
            args.output_dir,
            examples,
            model,
            processor,
            settings,
            encoder=args.model_name_or_path,
            on_finished=lambda shard: console.print(f"{shard.name} is complete"),
        )
    console.print(report.rank_report or f"rank {report.settings.rank}, as asked for")
    console.print(f"{sum(report.num_rows.values())} rows in {args.output_dir}: {report.num_rows}")


if __name__ == "__main__":
    with ends_in_one_line("storm_worlds.py"):
        main(parse())
