"""The arms of the demo: each is trained by the real trainers from the same base, then answers the same test clips.

base               learns to see: captions of clips and of thought videos
direct             answers at once
chain_of_thought   writes the state after each step in words, then answers
terse_chain        writes one word a step, then answers
align              Stage I
storm              Stage I, then Stage II
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from transformers import ProcessorMixin, TrainerCallback, set_seed

from storm_hf.align.config import StormAlignConfig
from storm_hf.align.trainer import StormAlignTrainer
from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.trainer import StormAnswerTrainer
from storm_hf.demo import data
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import measure_arm, measure_open, measure_storm
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.tasks import Report
from storm_hf.model import StormForConditionalGeneration
from storm_hf.reporting import write_atomically
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.thought_video import WorldExample
from storm_hf.training.checkpoints import ExitOnInterrupt, StopOnInterrupt
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.perception import caption_rows
from storm_hf.training.prompts import PromptEncoder
from storm_hf.training.trainer import StormTrainer
from storm_hf.worlds import make_world
from storm_hf.writing import read_json


CHAINS = ("chain_of_thought", "terse_chain")  # arms, and the columns that hold what they write


class ReportProgress(TrainerCallback):
    """Reports finished updates."""

    def __init__(self, report: Report, already_done: int = 0) -> None:
        self.report, self.already_done = report, already_done

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report."""
        self.report(self.already_done + state.global_step)


def train_base(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Teach a random backbone to see a world. Worker."""
    words = make_world(recipe.world, **recipe.knobs).vocabulary
    learn_to_see(folder.base, recipe, data.examples_of(folder, recipe)["train"], words, report)


def learn_to_see(
    base: Path, recipe: DemoRecipe, examples: Sequence[WorldExample], words: Sequence[str], report: Report
) -> None:
    """Teach a random backbone to see, by captions of the clips and of the thought videos, whatever world they show."""
    disable_progress_bars()
    processor = tiny_processor((*words, "Describe", "clip"), recipe.num_latents, recipe.frame_pixels)
    set_seed(recipe.seed)
    model = StormForConditionalGeneration(
        tiny_config(processor, recipe.num_latents, recipe.latent_scale, recipe.rope_theta)
    )
    rows = [
        {
            "video": str(example.video),
            "thought_video": str(example.thought.path),
            "clip_caption": example.clip_caption,
            "thought_caption": example.thought_caption,
        }
        for example in examples
    ]
    trainer = StormAnswerTrainer(
        model=model,
        args=training_arguments(StormAnswerConfig, base, recipe, "base", num_latents=0, freeze_vision=False),
        train_dataset=caption_rows(Dataset.from_list(rows)),
        processing_class=processor,
        callbacks=[ReportProgress(report)],
    )
    train(trainer)
    trainer.save_model(str(base))
    processor.save_pretrained(base)


def run_text_arm(folder: DemoFolder, recipe: DemoRecipe, arm: str, report: Report) -> None:
    """Train and test an arm that answers in words only: directly, or after a chain of thought. Worker."""
    if is_finished(folder, arm):
        return
    disable_progress_bars()
    model, processor = data.load(folder.base)
    column = arm if arm in CHAINS else None
    trainer = StormAnswerTrainer(
        model=model,
        args=training_arguments(StormAnswerConfig, folder.arm(arm), recipe, arm, num_latents=0),
        train_dataset=with_reasoning(data.dataset(folder, "train", with_thoughts=False), column),
        processing_class=processor,
        callbacks=[ReportProgress(report)],
    )
    seconds = train(trainer)
    tests = data.dataset(folder, "test", with_thoughts=False)
    longest = longest_answer(with_reasoning(tests, column), processor)
    results = measure_arm(trainer.model, processor, list(tests), recipe, num_latents=0, max_new_tokens=longest)
    prompts = PromptEncoder(processor, trainer.model.config, 0)
    open_results = measure_open(trainer.model, prompts, _open_tests(folder), recipe, max_new_tokens=longest)
    _finish(folder, recipe, arm, trainer, results, open_results, seconds)


def run_storm(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Train and test Stage I, then Stage II. Worker."""
    if is_finished(folder, "storm"):
        return
    disable_progress_bars()
    tests = list(data.dataset(folder, "test", with_thoughts=True))
    seconds = _align(folder, recipe, tests, report)
    model, processor = data.load(folder.arm("align"))
    first = recipe.trainings["align"].num_updates
    trainer = StormAnswerTrainer(
        model=model,
        args=training_arguments(
            StormAnswerConfig, folder.arm("storm"), recipe, "answer", bottleneck_share=recipe.bottleneck_share
        ),
        train_dataset=data.dataset(folder, "train", with_thoughts=False),
        processing_class=processor,
        callbacks=[ReportProgress(report, first)],
    )
    seconds += train(trainer)
    results = measure_storm(trainer.model, processor, tests, folder, recipe)
    prompts = PromptEncoder(processor, trainer.model.config, recipe.num_latents)
    trajectory = TargetTrajectory.load(folder.arm("align"))
    open_results = measure_open(trainer.model, prompts, _open_tests(folder), recipe, trajectory=trajectory)
    trainer.model.config.trained_on = [f"world:{recipe.world}"]
    trainer.save_model(str(folder.storm))
    processor.save_pretrained(folder.storm)
    _finish(folder, recipe, "storm", trainer, results, open_results, seconds)


def _align(folder: DemoFolder, recipe: DemoRecipe, tests: list[dict[str, Any]], report: Report) -> float:
    """Stage I with its own test; returns its training seconds. Done once."""
    if is_finished(folder, "align"):
        return read_json(folder.arm("align") / "results.json")["train_seconds"]
    model, processor = data.load(folder.base)
    settings = {
        "whitening_rank": recipe.whitening_rank,
        "target_layout": recipe.target_layout,
        "teacher_noise": recipe.teacher_noise,
        "bottleneck_share": recipe.bottleneck_share,
        "target_normalize": "layernorm" if recipe.naive_targets else "whiten",
    }
    args = training_arguments(StormAlignConfig, folder.arm("align"), recipe, "align", **settings)
    trainer = StormAlignTrainer(
        model=model,
        args=args,
        train_dataset=data.dataset(folder, "train", with_thoughts=True),
        processing_class=processor,
        target_trajectory=folder.data,
        callbacks=[ReportProgress(report)],
    )
    seconds = train(trainer)
    results = measure_arm(trainer.model, processor, tests, recipe, num_latents=recipe.num_latents)
    prompts = PromptEncoder(processor, trainer.model.config, recipe.num_latents)
    open_results = measure_open(trainer.model, prompts, _open_tests(folder), recipe)
    trainer.save_model(str(folder.arm("align")))
    processor.save_pretrained(folder.arm("align"))
    _finish(folder, recipe, "align", trainer, results, open_results, seconds)
    return seconds


def _open_tests(folder: DemoFolder) -> list[dict[str, Any]]:
    """Read the test rows with prompts that ask without options."""
    return list(data.dataset(folder, "test", with_thoughts=True, is_open=True))


def with_reasoning(rows: Dataset, column: str | None) -> Dataset:
    """Put a written chain of thought before each answer."""
    if column is None:
        return rows
    written = [f"{chain} {answer}" for chain, answer in zip(rows[column], rows["answer"], strict=True)]
    kind = rows.features["answer"]
    return rows.remove_columns("answer").add_column("answer", written, feature=kind)


def training_arguments(
    kind: type[StormTrainingConfig], folder: Path, recipe: DemoRecipe, name: str, **settings: Any
) -> Any:
    """Make the arguments of one of the recipe's trainings.

    Args:
        kind (`type`):
            `StormAlignConfig` or `StormAnswerConfig`.
        folder (`Path`):
            Folder of the checkpoints.
        recipe ([`DemoRecipe`]):
            Says how many updates at which rate.
        name (`str`):
            Name of the training in the recipe.
        settings:
            What this training has of its own.
    """
    training = recipe.trainings[name]
    return kind(
        output_dir=str(folder),
        max_steps=training.num_updates,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=min(30, training.num_updates // 5),
        adam_beta2=0.98,
        weight_decay=0.01,
        logging_steps=20,
        save_steps=100,
        save_total_limit=1,
        seed=recipe.seed,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=1 if name == "base" else 0,
        **settings,
    )


def is_finished(folder: DemoFolder, arm: str) -> bool:
    """Return True if an arm was trained and tested: its results are written last."""
    return (folder.arm(arm) / "results.json").exists()


def train(trainer: StormTrainer) -> float:
    """Train from where the last run stopped; returns the seconds of all runs together.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed, after a checkpoint was written.
    """
    clock = Path(trainer.args.output_dir, "train_seconds.json")
    spent_before = read_json(clock) if clock.exists() else 0.0
    started = time.perf_counter()
    interrupt = StopOnInterrupt()
    trainer.remove_callback(ExitOnInterrupt)
    trainer.add_callback(interrupt)
    trainer.train(resume_from_checkpoint=True)
    seconds = spent_before + time.perf_counter() - started
    write_atomically(clock, json.dumps(seconds) + "\n")
    if interrupt.is_interrupted:
        raise KeyboardInterrupt
    return seconds


def longest_answer(rows: Dataset, processor: ProcessorMixin) -> int:
    """Tokens that the longest answer needs, and a few to spare."""
    lengths = [len(ids) for ids in processor.tokenizer(list(rows["answer"]), add_special_tokens=False)["input_ids"]]
    return max(lengths) + 4


def _finish(
    folder: DemoFolder,
    recipe: DemoRecipe,
    arm: str,
    trainer: StormTrainer,
    results: Any,
    open_results: Mapping[str, Any],
    train_seconds: float,
) -> None:
    names = {"align": ("align",), "storm": ("align", "answer")}.get(arm, (arm,))
    record = {
        **dataclasses.asdict(results),
        "open": open_results,
        "train_seconds": train_seconds,
        "num_updates": sum(recipe.trainings[name].num_updates for name in names),
        "num_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }
    write_atomically(folder.arm(arm) / "results.json", json.dumps(record, indent=1) + "\n")
