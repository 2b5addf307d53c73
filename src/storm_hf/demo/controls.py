"""More arms, for the benchmark: tokens that carry nothing, latents that were never aligned, and the paper to the letter.

- `pause`: the same K slots, filled with a learned token instead of latents.
- `answer_only`: Stage II without Stage I.
- `paper`: raw targets pooled over the flat sequence, the squared error alone at weight 0.1, and hidden states fed back as they
  are, as in the paper; with the updates and the rates of our own arm.
"""

import copy
import dataclasses
import json
from pathlib import Path

from datasets import disable_progress_bars

from storm_hf.align.config import StormAlignConfig
from storm_hf.align.trainer import StormAlignTrainer
from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.trainer import StormAnswerTrainer
from storm_hf.demo import data
from storm_hf.demo.arms import ReportProgress, is_finished, train, training_arguments
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import measure_prompts
from storm_hf.demo.recipe import DemoRecipe, Training
from storm_hf.demo.tasks import Report, Task
from storm_hf.model import StormForConditionalGeneration
from storm_hf.reporting import write_atomically
from storm_hf.training.collator import AnswerCollator
from storm_hf.training.prompts import PromptEncoder
from storm_hf.training.trainer import StormTrainer


CONTROLS = {"pause": "Pause tokens", "answer_only": "Stage II alone", "paper": "The paper's targets and loss"}
PAPER = {
    "target_pooling": "sequence",
    "target_normalize": "none",
    "align_loss": "mse",
    "align_weight": 0.1,
}


def control_tasks(folder: DemoFolder, recipe: DemoRecipe) -> list[Task]:
    """The work of all controls, each with STORM's number of updates."""
    updates = recipe.trainings["align"].num_updates + recipe.trainings["answer"].num_updates
    works = {"pause": run_control, "answer_only": run_control, "paper": run_paper}
    return [Task(name, title, updates, works[name], (folder, recipe, name)) for name, title in CONTROLS.items()]


def run_control(folder: DemoFolder, recipe: DemoRecipe, arm: str, report: Report) -> None:
    """Train and test a control. Worker."""
    if is_finished(folder, arm):
        return
    disable_progress_bars()
    updates = recipe.trainings["align"].num_updates + recipe.trainings["answer"].num_updates
    trainings = {**recipe.trainings, arm: Training(updates, recipe.trainings["align"].learning_rate)}
    recipe = dataclasses.replace(recipe, trainings=trainings)
    model, processor = data.load(folder.base)
    prompts = PromptEncoder(processor, copy.deepcopy(model.config), recipe.num_latents)
    if arm == "pause":
        model.config.latent_token_id = None  # the placeholders become ordinary tokens with a learned embedding
    trainer = StormAnswerTrainer(
        model=model,
        args=training_arguments(StormAnswerConfig, folder.arm(arm), recipe, arm),
        train_dataset=data.dataset(folder, "train", with_thoughts=False),
        processing_class=processor,
        data_collator=AnswerCollator(prompts),
        callbacks=[ReportProgress(report)],
    )
    seconds = train(trainer)
    _test(folder, recipe, arm, trainer, prompts, seconds, updates)


def run_paper(folder: DemoFolder, recipe: DemoRecipe, arm: str, report: Report) -> None:
    """Train both stages with the paper's targets, loss and feedback, and test. Worker."""
    if is_finished(folder, arm):
        return
    disable_progress_bars()
    seen, processor = data.load(folder.base)
    config = copy.deepcopy(seen.config)
    config.latent_projector = "identity"
    model = StormForConditionalGeneration(config)
    model.backbone.load_state_dict(seen.backbone.state_dict())
    seconds, first = 0.0, recipe.trainings["align"].num_updates
    align = StormAlignTrainer(
        model=model,
        args=training_arguments(StormAlignConfig, folder.arm(arm) / "align", recipe, "align", **PAPER),
        train_dataset=data.dataset(folder, "train", with_thoughts=True),
        processing_class=processor,
        callbacks=[ReportProgress(report)],
    )
    seconds += train(align)
    answer = StormAnswerTrainer(
        model=StormForConditionalGeneration.from_pretrained(_saved(align, folder.arm(arm) / "aligned")),
        args=training_arguments(StormAnswerConfig, folder.arm(arm), recipe, "answer"),
        train_dataset=data.dataset(folder, "train", with_thoughts=False),
        processing_class=processor,
        callbacks=[ReportProgress(report, first)],
    )
    seconds += train(answer)
    prompts = PromptEncoder(processor, config, recipe.num_latents)
    _test(folder, recipe, arm, answer, prompts, seconds, first + recipe.trainings["answer"].num_updates)


def _saved(trainer: StormTrainer, folder: Path) -> Path:
    trainer.save_model(str(folder))
    return folder


def _test(
    folder: DemoFolder,
    recipe: DemoRecipe,
    arm: str,
    trainer: StormTrainer,
    prompts: PromptEncoder,
    seconds: float,
    updates: int,
) -> None:
    tests = list(data.dataset(folder, "test", with_thoughts=False))
    results = measure_prompts(trainer.model, prompts, tests, recipe, max_new_tokens=4)
    record = {**dataclasses.asdict(results), "train_seconds": seconds, "num_updates": updates}
    write_atomically(folder.arm(arm) / "results.json", json.dumps(record, indent=1) + "\n")
