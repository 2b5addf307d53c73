"""Accuracy of a checkpoint on a world's test split, by depth.

    python benchmarks/world_accuracy.py runs/tiny/storm data/shuffle

For runs of `trainers/*.py` on what `datasets_builders/` or `storm demo` built; clips are read from their files.
"""

import argparse
from collections import defaultdict

import torch
from rich.console import Console

from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.evaluation.batch import answer_questions, expected_choice
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.training.loading import load_rows


def main() -> None:
    """Answer, and print a row per depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-latents", type=int, help="instead of the checkpoint's own")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_checkpoint(arguments.checkpoint)
    num_latents = model.config.num_latents if arguments.num_latents is None else arguments.num_latents
    rows = load_rows(arguments.dataset)[arguments.split]
    rows = rows.remove_columns([name for name in rows.column_names if name.startswith("thought_")]).to_list()
    answers = answer_questions(model, PromptEncoder(processor, model.config, num_latents), rows)
    right: dict[int, list[bool]] = defaultdict(list)
    for row, answer in zip(rows, answers, strict=True):
        right[row["depth"]].append(answer.choice == expected_choice(row))
    out = Console(soft_wrap=True)
    out.print(
        f"{arguments.checkpoint} on {arguments.split} of {arguments.dataset}, {num_latents} latents\n", markup=False
    )
    out.print("| depth | right | questions |\n|---|---|---|")
    for depth, marks in sorted(right.items()):
        out.print(f"| {depth} | {sum(marks) / len(marks):.3f} | {len(marks)} |")
    everything = sum(right.values(), [])
    out.print(f"| all | {sum(everything) / len(everything):.3f} | {len(everything)} |")


if __name__ == "__main__":
    main()
