"""Two more controls, for the benchmark: what do latents do that were never aligned, and tokens that carry nothing?

pause            the same K slots, filled with a learned token instead of latents
answer_only      Stage II without Stage I
"""

import copy
import dataclasses
import json

from datasets import disable_progress_bars

from storm_hf.answer.trainer import StormAnswerTrainer
from storm_hf.demo import data
from storm_hf.demo.arms import ReportProgress, answer_arguments, is_finished, train
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import measure_prompts
from storm_hf.demo.recipe import DemoRecipe, Training
from storm_hf.demo.tasks import Report, Task
from storm_hf.reporting import write_atomically
from storm_hf.training.collator import AnswerCollator
from storm_hf.training.prompts import PromptEncoder


CONTROLS = {"pause": "Pause tokens", "answer_only": "Stage II alone"}


def control_tasks(folder: DemoFolder, recipe: DemoRecipe) -> list[Task]:
    """The work of both controls, each with STORM's number of updates."""
    updates = recipe.trainings["align"].num_updates + recipe.trainings["answer"].num_updates
    return [Task(name, title, updates, run_control, (folder, recipe, name)) for name, title in CONTROLS.items()]


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
        args=answer_arguments(folder.arm(arm), recipe, arm),
        train_dataset=data.dataset(folder, "train", with_thoughts=False),
        processing_class=processor,
        data_collator=AnswerCollator(prompts),
        callbacks=[ReportProgress(report)],
    )
    seconds = train(trainer)
    tests = list(data.dataset(folder, "test", with_thoughts=False))
    results = measure_prompts(trainer.model, prompts, tests, recipe, max_new_tokens=4)
    record = {**dataclasses.asdict(results), "train_seconds": seconds, "num_updates": updates}
    write_atomically(folder.arm(arm) / "results.json", json.dumps(record, indent=1) + "\n")
