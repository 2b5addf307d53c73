"""Training of the demo: one function trains any variant with the package's own trainers."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from peft import LoraConfig
from transformers import ProcessorMixin, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from storm_hf.align.config import StormAlignConfig
from storm_hf.align.trainer import StormAlignTrainer
from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.trainer import StormAnswerTrainer
from storm_hf.atomic import read_json
from storm_hf.curriculum.reasoning import replace_reasoning
from storm_hf.demo import data
from storm_hf.demo.backbone import make_pretrained_backbone, tiny_config, tiny_processor
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.language import compare_language, record_backbone, recorded_rows
from storm_hf.demo.measure import measure_variant
from storm_hf.demo.recipe import DemoRecipe, Training
from storm_hf.demo.tasks import Report, Task
from storm_hf.demo.variants import Variant, base_variant, trains_thought_adapter
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.model import StormForConditionalGeneration, storm_processor
from storm_hf.reporting import write_atomically
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.device import computes_in_bf16
from storm_hf.training.loading import thought_settings
from storm_hf.training.resume import ExitOnInterrupt, StopOnInterrupt
from storm_hf.training.trainer import StormTrainer
from storm_hf.worlds import make_world


_CLOCK = "train_seconds.json"
_VISION_TOWER = "visual"  # as Qwen2.5-VL calls it
Part = tuple[DemoFolder, DemoRecipe]


class _ReportProgress(TrainerCallback):
    """Reports finished updates."""

    def __init__(self, report: Report, already_done: int = 0) -> None:
        self.report, self.already_done = report, already_done

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Report."""
        self.report(self.already_done + state.global_step)


def variant_task(folder: DemoFolder, recipe: DemoRecipe, variant: Variant) -> Task:
    """Make the work of a variant, training and test, to be given to `run_tasks`."""
    return Task(variant.name, variant.title, variant.num_updates, run_variant, (folder, recipe, variant))


def training_task(folder: DemoFolder, recipe: DemoRecipe, variant: Variant) -> Task:
    """Make the training of a variant, and first of those that it starts from."""
    return Task(variant.name, variant.title, variant.num_updates, train_in_order, (folder, recipe, variant))


def evaluation_tasks(folder: DemoFolder, recipe: DemoRecipe, variants: Sequence[Variant]) -> list[Task]:
    """Make the tests of variants and of those that they start from, the longest first."""
    lineages = [variant.lineage for variant in variants]
    tested = {one.name: (one, one is lineage[-1]) for lineage in lineages for one in lineage}
    tasks = [
        Task(
            f"evaluate_{name}",
            f"Test: {one.title}",
            1,
            evaluate_variant,
            (folder, recipe, one, is_last and one.has_latents),
        )
        for name, (one, is_last) in tested.items()
    ]
    return sorted(tasks, key=lambda task: not task.args[-1])  # replaced latents take the longest


def run_variant(folder: DemoFolder, recipe: DemoRecipe, variant: Variant, report: Report) -> None:
    """Train and test a variant, and first those that it starts from, unless that was done before. Worker.

    Args:
        folder ([`DemoFolder`]):
            Folder of the demo, with a base and encoded clips.
        recipe ([`DemoRecipe`]):
            Its recipe.
        variant ([`Variant`]):
            A row of the table.
        report (`Callable[[int], None]`):
            Called with the number of finished updates.
    """
    if folder.is_finished(variant.name):
        return
    train_in_order(folder, recipe, variant, report)
    for one in variant.lineage:
        evaluate_variant(folder, recipe, one, one is variant, report)


def train_in_order(folder: DemoFolder, recipe: DemoRecipe, variant: Variant, report: Report) -> None:
    """Train a variant, and first those that it starts from, unless that was done before. Worker."""
    for one in variant.lineage:
        if not folder.is_trained(one.name):
            train_variant(folder, recipe, one, report)


def evaluate_variant(
    folder: DemoFolder, recipe: DemoRecipe, variant: Variant, with_interventions: bool, report: Report
) -> None:
    """Test a trained variant, unless that was done before. Worker.

    Args:
        folder ([`DemoFolder`]):
            Folder of the demo.
        recipe ([`DemoRecipe`]):
            Its recipe.
        variant ([`Variant`]):
            A row of the table.
        with_interventions (`bool`):
            Whether latents are replaced, if it has any: not those of a variant that another one starts from.
        report (`Callable[[int], None]`):
            Not called: a test is one step.
    """
    disable_progress_bars()
    if not folder.is_finished(variant.name):
        write_results(folder, folder, recipe, variant, with_interventions=with_interventions)


def write_results(
    trained: DemoFolder,
    tested: DemoFolder,
    recipe: DemoRecipe,
    variant: Variant,
    *,
    with_interventions: bool = True,
) -> None:
    """Test the checkpoint of a variant on the clips of a folder and write its results there: with them it is finished."""
    stage_one, checkpoint = variant.stage_one, trained.checkpoint(variant.name)
    results = measure_variant(
        tested,
        recipe,
        variant,
        *data.load(checkpoint),
        trajectory=None if stage_one is None else TargetTrajectory.load(trained.variant(stage_one.name)),
        with_interventions=with_interventions,
    )
    results |= {"train_seconds": train_seconds(trained, variant), "num_updates": variant.num_updates}
    results |= read_json(trained.training_record(variant.name))
    if recipe.backbone != "tiny" and trained == tested:
        results["language"] = json.loads(compare_language(trained, checkpoint, variant.name).to_json())
    write_atomically(tested.variant(variant.name) / "results.json", json.dumps(results, indent=1) + "\n")


def make_backbone(folder: DemoFolder, recipe: DemoRecipe, report: Report) -> None:
    """Make the pretrained backbone of a demo and record its language. Worker."""
    make_pretrained_backbone(folder.backbone, recipe.frame_pixels, recipe.seed)
    report(1)
    record_backbone(folder, recipe)


def train_base(folder: DemoFolder, recipe: DemoRecipe, report: Report, parts: Sequence[Part] = ()) -> None:
    """Train the base, as [`train_variant`] does. Worker."""
    train_variant(folder, recipe, base_variant(recipe), report, parts)


def train_variant(
    folder: DemoFolder, recipe: DemoRecipe, variant: Variant, report: Report, parts: Sequence[Part] = ()
) -> None:
    """Train a variant from where it stopped and save its model.

    Args:
        folder ([`DemoFolder`]):
            Folder of its checkpoints.
        recipe ([`DemoRecipe`]):
            Recipe of the training.
        variant ([`Variant`]):
            A row of the table. The one that it starts from has been trained.
        report (`Callable[[int], None]`):
            Called with the number of finished updates.
        parts (`Sequence[tuple[DemoFolder, DemoRecipe]]`, *optional*):
            Folders whose training clips are used together, by default `folder` alone.
    """
    disable_progress_bars()
    parts = parts or ((folder, recipe),)
    model, processor = _start(folder, recipe, variant, parts)
    prepare_adapter(model, recipe, variant)
    trainer = _make_trainer(folder, recipe, variant, model, processor, _rows(variant, parts), report)
    train(trainer)
    if variant.stage != "base":
        trainer.model.config.trained_on = [f"world:{part.world}" for _, part in parts]
    if is_peft_model(trainer.model):
        trainer.model = trainer.model.merge_and_unload()  # so that every checkpoint opens alone
    trainer.save_model(str(folder.checkpoint(variant.name)))
    groups = trainer.optimizer.param_groups  # the weights that were trained: an adapter has been merged since
    record = {"num_parameters": sum(parameter.numel() for group in groups for parameter in group["params"])}
    write_atomically(folder.training_record(variant.name), json.dumps(record) + "\n")


def _start(
    folder: DemoFolder, recipe: DemoRecipe, variant: Variant, parts: Sequence[Part]
) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    """Make the model that the training starts with."""
    if variant.stage != "base":
        return data.load(folder.checkpoint("base" if variant.start is None else variant.start.name), **variant.config)
    if recipe.backbone != "tiny":
        processor = storm_processor(str(folder.backbone), recipe.num_latents)
        backbone = str(folder.backbone)
        return StormForConditionalGeneration.from_backbone(
            backbone, recipe.num_latents, processor=processor
        ), processor
    words = {word for _, part in parts for word in make_world(part.world, **part.knobs).vocabulary}
    processor = tiny_processor(words | {"Describe", "clip"}, recipe.num_latents, recipe.frame_pixels)
    config = tiny_config(processor, recipe.num_latents, recipe.latent_scale, recipe.rope_theta)
    set_seed(recipe.seed)
    return StormForConditionalGeneration(config), processor


def prepare_adapter(model: StormForConditionalGeneration, recipe: DemoRecipe, variant: Variant) -> None:
    """Give a variant the thought adapter that it trains; one without latents sees by the weights that it is merged into."""
    rank = recipe.thought_adapter_rank
    if rank is None:
        return
    has_adapter, trains_it = model.config.thought_adapter is not None, trains_thought_adapter(recipe, variant)
    if trains_it and not has_adapter:
        model.add_thought_adapter(**thought_settings(rank))
    elif has_adapter and not trains_it:
        model.merge_thought_adapter()


def _rows(variant: Variant, parts: Sequence[Part]) -> Dataset:
    """Load the rows that the variant is trained on."""
    if variant.stage == "base":
        return data.captions([example for part in parts for example in data.examples_of(*part)["train"]])
    with_thoughts = variant.stage == "align"
    rows = concatenate_datasets([data.dataset(part, "train", with_thoughts=with_thoughts) for part, _ in parts])
    return rows if variant.chain is None else replace_reasoning(rows, variant.chain, 0)


def _make_trainer(
    folder: DemoFolder,
    recipe: DemoRecipe,
    variant: Variant,
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    rows: Dataset,
    report: Report,
) -> StormTrainer:
    is_align = variant.stage == "align"
    trainer_class, config_class = (
        (StormAlignTrainer, StormAlignConfig) if is_align else (StormAnswerTrainer, StormAnswerConfig)
    )
    settings = dict(variant.settings)
    keeps_language = recipe.keep_language > 0 and not trains_thought_adapter(recipe, variant)
    if keeps_language:
        settings |= {"keep_language": recipe.keep_language, "language_batch_size": recipe.language_batch_size}
    if recipe.wordings != "usual" and variant.stage != "base":  # encoded rows of unequal length
        settings["train_sampling_strategy"] = "group_by_length"
    if variant.num_latents != model.config.num_latents:
        settings["num_latents"] = variant.num_latents
    prompts = variant.make_prompts(processor, model.config)
    targets = folder.data if folder.data.exists() else None  # those of several folders are fitted to all their rows
    return trainer_class(
        model=model,
        args=training_arguments(
            config_class, folder.training_record(variant.name).parent, recipe, variant.training, **settings
        ),
        train_dataset=rows,
        processing_class=processor,
        callbacks=[_ReportProgress(report, variant.num_given)],
        language_dataset=recorded_rows(folder) if keeps_language else None,
        peft_config=_make_adapter(recipe, variant),
        **{"target_trajectory": targets} if is_align else {"data_collator": AnswerCollator(prompts)},
    )


def _make_adapter(recipe: DemoRecipe, variant: Variant) -> LoraConfig | None:
    """Make an adapter on the language model, if it is neither trained whole nor left as it is."""
    if recipe.lora_rank is None or trains_thought_adapter(recipe, variant):
        return None
    whole = None if variant.settings.get("freeze_vision", True) else [_VISION_TOWER]
    return LoraConfig(r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, modules_to_save=whole)


def training_arguments(
    config_class: type[StormTrainingConfig], folder: Path, recipe: DemoRecipe, training: Training, **settings: Any
) -> Any:
    """Make the arguments of one training.

    Args:
        config_class (`type`):
            `StormAlignConfig` or `StormAnswerConfig`.
        folder (`Path`):
            Folder of the checkpoints.
        recipe ([`DemoRecipe`]):
            Says how many clips are in a batch, and the seed.
        training ([`~storm_hf.demo.recipe.Training`]):
            Number of updates and learning rate.
        settings:
            Further arguments.
    """
    return config_class(
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
        bf16=recipe.backbone != "tiny" and computes_in_bf16(),  # masters stay in float32
        report_to="none",
        disable_tqdm=True,
        **settings,
    )


def train(trainer: StormTrainer) -> None:
    """Train from where the last run stopped, and add up the seconds of all runs.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed, after a checkpoint was written.
    """
    clock = Path(trainer.args.output_dir, _CLOCK)
    spent_before = read_json(clock) if clock.exists() else 0.0
    started = time.perf_counter()
    interrupt = StopOnInterrupt()
    trainer.remove_callback(ExitOnInterrupt)
    trainer.add_callback(interrupt)
    trainer.train(resume_from_checkpoint=True)
    write_atomically(clock, json.dumps(spent_before + time.perf_counter() - started) + "\n")
    if interrupt.is_interrupted:
        raise KeyboardInterrupt


def train_seconds(folder: DemoFolder, variant: Variant) -> float:
    """Wall time of the training of a variant and of those that it starts from."""
    seconds = read_json(folder.variant(variant.name) / _CLOCK)
    return seconds if variant.start is None else seconds + train_seconds(folder, variant.start)
