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

from storm_hf.atomic import read_json
from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.demo import DemoFolder
from storm_hf.diagnostics.intervention_effects import AnswerTable
from storm_hf.diagnostics.questions import read_questions
from storm_hf.diagnostics.replay import answer_again
from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.batch import answer_questions
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.interventions.intervention import Intervention
from storm_hf.interventions.kind import InterventionKind


def main() -> None:
    """Edit each step but the last, and print one row per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a finished run of `storm demo`")
    folder = DemoFolder(parser.parse_args().folder.resolve())
    model, processor = load_checkpoint(str(folder.storm))
    num_latents, size = model.config.num_latents, model.config.hidden_size
    deep = read_json(folder.path / "recipe.json")["deep"]
    questions = read_questions(str(folder.path), num_latents=num_latents, hidden_size=size, depths=deep)
    if questions.world is None or questions.states is None:
        raise ConfigurationError(f"Expected a run with a simulator: {'; '.join(questions.absent.values())}")
    prompts = PromptEncoder(processor, model.config, num_latents)
    own = answer_questions(model, prompts, questions.rows, max_new_tokens=1, batch_size=256)
    latents, donors = np.stack([np.asarray(answer.latents) for answer in own]), np.roll(np.arange(len(own)), 1)
    kind = InterventionKind.shuffled
    edits = {str(step): Intervention(kind, latents[donors], steps=[step]) for step in range(num_latents - 1)}
    own_first = {"own": Intervention()} | edits
    replies = answer_again(model, prompts, questions.rows, own_first, max_new_tokens=4, batch_size=256)
    table = AnswerTable(questions.rows, replies["own"], questions.clips)
    out = Console(soft_wrap=True)
    out.print("| edited step | answers that follow the simulator | that keep their own | changed questions |")
    out.print("|---|---|---|---|")
    for step in range(num_latents - 1):
        edit = table.counterfactual(questions.world, questions.states, step, donors, replies[str(step)])
        if edit is not None:
            cells = f"{edit.follows.mean:.3f} | {edit.keeps.mean:.3f} | {edit.num_questions}"
            out.print(f"| {step + 1} | {cells} |", markup=False)


if __name__ == "__main__":
    main()
