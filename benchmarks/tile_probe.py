"""Errors of a lattice: the number of its tiles that a linear probe reads from each latent, given true thoughts and rolled out.

    python benchmarks/tile_probe.py runs/worlds/lattice-0 --variant align --clips 512
    python benchmarks/tile_probe.py runs/worlds/lattice-0 --ranks 32 48 64 96      targets of other ranks; no variant has to be trained

The probe is fitted on the true targets of clips of training, so it says what a latent holds in the place where the target has it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from length import checkpoint_of, last_of
from rich.console import Console
from worlds import table

from storm_hf.demo import DemoFolder, data
from storm_hf.diagnostics import Intervention, InterventionKind
from storm_hf.evaluation.batch import accuracy, answer_questions
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.target_trajectory import RankReport, TargetTrajectory, choose_rank
from storm_hf.target_trajectory.pool import pool_clips
from storm_hf.target_trajectory.rank import ridge_weights
from storm_hf.target_trajectory.trajectory import FILE_NAME


NUM_FITTED = 2000
RIDGE = 1e-3
Rows = Sequence[dict[str, Any]]


def tiles_of(rows: Rows) -> torch.Tensor:
    """The true tiles after each step, 1 or -1, (N, K, tiles)."""
    return torch.tensor([[[2.0 * int(bit) - 1 for bit in state] for state in row["states"]] for row in rows])


def targets_of(folder: DemoFolder, name: str) -> TargetTrajectory:
    """Load the targets that a variant was aligned with: they lie with its Stage I, also that of earlier runs."""
    stage_one = "align" if name in ("align", "storm") else f"{name}_align"
    known = [folder.variant(stage_one), folder.variant(name), last_of(folder.variant(name) / "align")]
    return TargetTrajectory.load(next(path for path in known if path and (path / FILE_NAME).exists()))


def encode(trajectory: TargetTrajectory, rows: Rows) -> torch.Tensor:
    """The targets of rows, (N, K, hidden size)."""
    return trajectory([row["thought_features"] for row in rows])


def fit(trajectory: TargetTrajectory, rows: Rows) -> torch.Tensor:
    """Linear map from a target to its tiles, (hidden size, tiles)."""
    known, tiles = encode(trajectory, rows).double(), tiles_of(rows).double()
    return ridge_weights(known.flatten(0, 1), tiles.flatten(0, 1), RIDGE).float()


def read(latents: torch.Tensor, weights: torch.Tensor, tiles: torch.Tensor) -> list[str]:
    """Share of tiles that are read off the latents of each step."""
    return [f"{value:.3f}" for value in ((latents @ weights > 0) == (tiles > 0)).float().mean(dim=(0, 2)).tolist()]


def rank_report(rows: Rows, ranks: Sequence[int]) -> RankReport:
    """Share of the targets' variance that each rank explains, and the accuracy of the tile that is read worst."""
    features, tiles = [np.asarray(row["thought_features"]) for row in rows], tiles_of(rows)
    return choose_rank(pool_clips(features, tiles.shape[1], layout="concat"), tiles.numpy(), ranks)


def variant_table(folder: DemoFolder, name: str, fitted: Rows, rows: Rows) -> str:
    """Accuracy of the tiles read from targets, from latents after true thoughts, and from latents rolled out."""
    trajectory = targets_of(folder, name)
    weights, tiles = fit(trajectory, fitted), tiles_of(rows)
    targets = encode(trajectory, rows).float()
    model, processor = data.load(checkpoint_of(folder, name))
    prompts = PromptEncoder(processor, model.config, targets.shape[1])
    found = [["the true targets", "-", *read(targets, weights, tiles)]]
    oracle = Intervention(InterventionKind.oracle, targets.numpy())
    for what, intervention in {"latents after true thoughts": oracle, "latents rolled out": Intervention()}.items():
        answers = answer_questions(model, prompts, rows, max_new_tokens=4, intervene=intervention)
        latents = torch.from_numpy(np.stack([np.asarray(answer.latents) for answer in answers])).float()
        found.append([what, f"{accuracy(answers, rows):.3f}", *read(latents, weights, tiles)])
    return table(["tiles read off", "answers", *(f"step {step + 1}" for step in range(targets.shape[1]))], found)


def main() -> None:
    """Draw the clips and print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run on `lattice`")
    parser.add_argument("--variant", default="storm", help="one with Stage I")
    parser.add_argument("--ranks", type=int, nargs="+", help="of targets; instead of a variant")
    parser.add_argument("--clips", type=int, default=512, help="of all depths")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = DemoFolder(arguments.folder.resolve())
    fitted = list(data.dataset(folder, "train", with_thoughts=True).select(range(NUM_FITTED)))
    console = Console(soft_wrap=True)
    if arguments.ranks:
        console.print(str(rank_report(fitted, arguments.ranks)), markup=False)
        return
    tests = data.dataset(folder, "test", with_thoughts=True)
    drawn = np.random.default_rng(arguments.seed).permutation(len(tests))[: arguments.clips]
    console.print(variant_table(folder, arguments.variant, fitted, list(tests.select(drawn.tolist()))), markup=False)


if __name__ == "__main__":
    main()
