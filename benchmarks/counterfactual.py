"""Edit one latent in the middle of the rollout: does the answer become what the simulator says would have followed?

    python benchmarks/counterfactual.py runs/demo

The latent of step k is replaced by another clip's; the model rolls out the later steps itself, on its own clip. The simulator says
what the answer would be if the state after step k had been the other clip's and the clip had continued as it did. A latent that
is part of a simulation leads there; one that only reads the clip out again does not.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from storm_hf.demo import data
from storm_hf.demo.folder import DemoFolder, read_json
from storm_hf.diagnostics import feed
from storm_hf.evaluation.answering import answer_questions
from storm_hf.training.prompts import PromptEncoder
from storm_hf.worlds import make_world


def main() -> None:
    """Edit each step but the last, and print one row per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a finished run of `storm demo`")
    folder = DemoFolder(parser.parse_args().folder.resolve())
    recipe = read_json(folder.path / "recipe.json")
    world = make_world(recipe["world"], **recipe["knobs"])
    model, processor = data.load(folder.storm)
    with np.load(folder.path / "latents.npz") as stored:
        latents, indices = stored["latents"], stored["indices"].tolist()
    tests = data.dataset(folder, "test", with_thoughts=False)
    rows = [tests[index] for index in indices]
    donors = np.roll(np.arange(len(rows)), 1)
    prompts = PromptEncoder(processor, model.config, recipe["num_latents"])
    out = Console(soft_wrap=True)
    out.print("| edited step | answers that follow the simulator | that keep their own | changed questions |")
    out.print("|---|---|---|---|")
    for step in range(recipe["num_latents"] - 1):
        answers = answer_questions(
            model, prompts, rows, max_new_tokens=4, batch_size=256, intervene=feed(latents[donors], steps=[step])
        )
        expected = [
            world.counterfactual(int(row["seed"]), step + 1, str(rows[donor]["states"][step]), depth=int(row["depth"]))
            for row, donor in zip(rows, donors, strict=True)
        ]
        changed = [index for index, row in enumerate(rows) if expected[index] != row["answer"]]
        follows = np.mean([answers[index].choice == expected[index] for index in changed])
        keeps = np.mean([answers[index].choice == rows[index]["answer"] for index in changed])
        out.print(f"| {step + 1} | {follows:.3f} | {keeps:.3f} | {len(changed)} |", markup=False)


if __name__ == "__main__":
    main()
