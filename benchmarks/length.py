"""Longer than trained: a model that learned on six steps answers clips of 7, 8, 10 and 16, with as many latents as steps.

    python benchmarks/length.py runs/worlds/shuffle-0 runs/worlds/shuffle-1 --steps 6 7 8 10 16
    python benchmarks/controls.py --world shuffle --part ablations --variants step
    python benchmarks/length.py runs/worlds/shuffle-0 runs/worlds/shuffle-1 --variant step

Each folder is a finished run of `storm demo`, on a world whose clip shows its steps (`shuffle`, `lattice`). The new clips have seeds of
their own and lie in the folder under `longer/`; the checkpoint is not trained again. How many steps are updates is drawn as in
training (`drawn`), or all of them are (`all`), which is deeper than anything that was trained.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from transformers.trainer_utils import get_last_checkpoint
from worlds import table

from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, data
from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import accuracy, answer_questions
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.worlds import EpisodeFiles, make_world, split_seeds, write_episodes


MOST_UPDATES = {"shuffle": "max_swaps", "lattice": "max_operations"}  # the knob that has to grow with the steps


@dataclass(frozen=True)
class Length:
    """Accuracy at one number of steps, and what guessing reaches."""

    num_steps: int
    accuracy: float
    chance: float


def longer_episodes(folder: DemoFolder, num_steps: int, depth: str, count: int) -> list[EpisodeFiles]:
    """Render clips of so many steps, or find them."""
    recipe = read_json(folder.path / "recipe.json")
    if recipe["world"] not in MOST_UPDATES:
        raise ConfigurationError(
            f"Expected a run on {' or '.join(MOST_UPDATES)} but {folder.path} is one on {recipe['world']}."
        )
    knobs = {**recipe["knobs"], "num_steps": num_steps, MOST_UPDATES[recipe["world"]]: num_steps}
    world = make_world(recipe["world"], **knobs)
    return write_episodes(
        world,
        split_seeds("longer", count, recipe["seed"]),
        folder.path / "longer" / f"{num_steps}-{depth}",
        depths=num_steps if depth == "all" else None,
    )


def checkpoint_of(folder: DemoFolder, name: str) -> Path:
    """Find the weights of a variant. Those of earlier runs of controls.py are its last checkpoint."""
    trained = folder.checkpoint(name)
    if (trained / "config.json").exists():
        return trained
    stages = [last for stage in ("answer", "align") if (last := last_of(trained / stage))]
    if not stages:
        raise ConfigurationError(
            f"Expected a trained variant under {trained} but there is no checkpoint. Train it first."
        )
    return stages[0]


def last_of(stage: Path) -> Path | None:
    """Find the last checkpoint of a stage; `None` if it was not trained."""
    last = get_last_checkpoint(str(stage)) if stage.exists() else None
    return None if last is None else Path(last)


def to_row(episode: EpisodeFiles) -> dict[str, Any]:
    """Make a question to a model."""
    words = {"question": episode.question, "options": list(episode.options), "answer": episode.answer}
    return {"video": str(episode.clip_path), **words}


def measure(folder: DemoFolder, num_steps: int, depth: str, count: int, checkpoint: Path) -> Length:
    """Answer the clips of one length with one latent per step."""
    episodes = longer_episodes(folder, num_steps, depth, count)
    rows = [to_row(episode) for episode in episodes]
    model, processor = data.load(checkpoint)
    prompts = PromptEncoder(processor, model.config, num_steps)
    answers = answer_questions(model, prompts, rows, max_new_tokens=4)
    return Length(num_steps, accuracy(answers, rows), 1 / len(episodes[0].options))


def main() -> None:
    """Measure each folder at each length and print one row per folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="finished runs of `storm demo`")
    parser.add_argument("--steps", type=int, nargs="+", default=[6, 7, 8, 10, 16])
    parser.add_argument("--depth", default="drawn", choices=("drawn", "all"), help="steps that are updates")
    parser.add_argument("--clips", type=int, default=256, help="of each length")
    parser.add_argument("--variant", default="storm", help="`storm`, `align` (Stage I alone), or one of controls.py")
    arguments = parser.parse_args()
    rows, chance = [], 0.0
    for path in arguments.folders:
        folder = DemoFolder(path.resolve())
        checkpoint = checkpoint_of(folder, arguments.variant)
        lengths = [measure(folder, steps, arguments.depth, arguments.clips, checkpoint) for steps in arguments.steps]
        chance = lengths[0].chance
        rows.append([path.name, *(f"{one.accuracy:.3f}" for one in lengths)])
    if len(rows) > 1:
        rows.append(["mean", *(f"{np.mean([float(row[at]) for row in rows]):.3f}" for at in range(1, len(rows[0])))])
    out = Console(soft_wrap=True)
    head = ["run", *(f"{steps} steps" for steps in arguments.steps)]
    out.print(
        f"{arguments.variant}, {arguments.clips} clips of each length, depth {arguments.depth}, chance {chance:.3f}\n"
    )
    out.print(table(head, rows), markup=False)


if __name__ == "__main__":
    main()
