"""An arm as data: what a prompt holds before its answer, what each stage trains for how long, and how it is tested.

All arms of a run start from the same base, see the same rows in the same order, and are tested on the same clips.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from transformers import ProcessorMixin, set_seed

from storm_hf.align.config import StormAlignConfig
from storm_hf.align.trainer import StormAlignTrainer
from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.trainer import StormAnswerTrainer
from storm_hf.demo import data
from storm_hf.demo.arms import ReportProgress, is_finished, longest_answer, train, training_arguments, with_reasoning
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.measure import deep_indices, measure_interventions, measure_open, measure_prompts
from storm_hf.demo.recipe import DemoRecipe, Training
from storm_hf.demo.tasks import Report, Task
from storm_hf.evaluation.answering import accuracy, answer_questions
from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.reporting import write_atomically
from storm_hf.training.collator import AnswerCollator
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.flops import TokenCounts, attention_shape, count_parameters, training_flops
from storm_hf.training.prompts import PromptEncoder, Row
from storm_hf.training.trainer import freeze_vision


Block = Literal["none", "markers", "pause", "latents"]

_NUM_COUNTED = 64  # rows whose length stands for all


@dataclass(frozen=True)
class Variant:
    """One arm.

    Args:
        name (`str`):
            Of its folder. Two variants of one run must not share it.
        title (`str`):
            Title in tables and progress bars.
        block (`str`, *optional*, defaults to `"latents"`):
            Tokens between question and answer: `"none"`, the two `"markers"` of the latent block alone, `"pause"` (K slots
            with one learned token) or `"latents"`.
        chain (`str`, *optional*):
            Column with a text that is written before the answer.
        align_updates (`int`, *optional*, defaults to `0`):
            Updates of Stage I; 0 leaves it out.
        answer_updates (`int`, *optional*, defaults to `0`):
            Updates on answers: Stage II after Stage I, else the only stage.
        align_rate (`float`, *optional*, defaults to `1e-3`):
            Learning rate of Stage I.
        answer_rate (`float`, *optional*, defaults to `1e-4`):
            Learning rate on answers.
        num_latents (`int`, *optional*, defaults to `6`):
            Number K of latent steps, or of pause tokens.
        latent_scale (`float`, *optional*):
            Instead of the base's.
        latent_projector (`str`, *optional*):
            Instead of the base's.
        latent_attention (`str`, *optional*):
            Instead of the base's.
        bottleneck_share (`float`, *optional*, defaults to `0.0`):
            Of both stages; see [`StormTrainingConfig`].
        align (`Mapping[str, Any]`, *optional*):
            Further settings of Stage I, see [`StormAlignConfig`].
        test_num_latents (`tuple[int, ...]`, *optional*):
            Numbers of latent steps that it is also tested with.
    """

    name: str
    title: str
    block: Block = "latents"
    chain: str | None = None
    align_updates: int = 0
    answer_updates: int = 0
    align_rate: float = 1e-3
    answer_rate: float = 1e-4
    num_latents: int = 6
    latent_scale: float | None = None
    latent_projector: str | None = None
    latent_attention: str | None = None
    bottleneck_share: float = 0.0
    align: Mapping[str, Any] = field(default_factory=dict)
    test_num_latents: tuple[int, ...] = ()

    @property
    def num_updates(self) -> int:
        """Of both stages."""
        return self.align_updates + self.answer_updates

    def scaled_to(self, num_updates: int) -> "Variant":
        """The same with so many updates in all, shared by the stages as before."""
        align = round(num_updates * self.align_updates / self.num_updates)
        return dataclasses.replace(self, align_updates=align, answer_updates=num_updates - align)


@dataclass(frozen=True)
class MarkersEncoder(PromptEncoder):
    """Writes the two markers of the latent block with nothing between them."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Encode without a block and add the markers, on the right, where prompts end."""
        batch = super().__call__(rows)
        start_id, _, end_id = self.config.latent_block_ids
        markers = torch.tensor([[start_id, end_id]]).expand(len(rows), -1)
        added = {"input_ids": markers, "attention_mask": torch.ones_like(markers)}
        added["mm_token_type_ids"] = added["clip_token_mask"] = torch.zeros_like(markers)
        return batch | {name: torch.cat([batch[name], added[name]], dim=1) for name in added if name in batch}


def variant_task(folder: DemoFolder, recipe: DemoRecipe, variant: Variant) -> Task:
    """The work of an arm, to be given to `run_tasks`."""
    return Task(variant.name, variant.title, variant.num_updates, run_variant, (folder, recipe, variant))


def run_variant(folder: DemoFolder, recipe: DemoRecipe, variant: Variant, report: Report) -> None:
    """Train and test an arm, unless that was done before. Worker."""
    if is_finished(folder, variant.name):
        return
    model, prompts, seconds = train_variant(folder, recipe, variant, report)
    measure_variant(folder, recipe, variant, model, prompts, seconds)


def train_variant(
    folder: DemoFolder,
    recipe: DemoRecipe,
    variant: Variant,
    report: Report,
    sources: Sequence[DemoFolder] | None = None,
) -> tuple[StormForConditionalGeneration, PromptEncoder, float]:
    """Train an arm from where it stopped, on the rows of its folder or of several `sources`.

    Returns its model, what writes its prompts, and the seconds.
    """
    disable_progress_bars()
    model, config, processor = _start(folder, recipe, variant)
    recipe = dataclasses.replace(recipe, trainings={**recipe.trainings, **_trainings(variant)})
    training, seconds = _Training(folder, recipe, variant, report, sources or (folder,)), 0.0
    if variant.align_updates:
        seconds += training.align(model, processor)
    prompts = _encoder(variant, processor, config)
    if variant.answer_updates:
        seconds += training.answer(model, prompts)
    return model, prompts, seconds


def measure_variant(
    folder: DemoFolder,
    recipe: DemoRecipe,
    variant: Variant,
    model: StormForConditionalGeneration,
    prompts: PromptEncoder,
    train_seconds: float,
) -> None:
    """Test an arm, also with other numbers of latents and with replaced ones, and write what was found."""
    rows = data.dataset(folder, "test", with_thoughts=False)
    tests = list(rows)
    longest = longest_answer(with_reasoning(rows, variant.chain), prompts.processor)
    results = dataclasses.asdict(measure_prompts(model, prompts, tests, recipe, max_new_tokens=longest))
    open_tests = list(data.dataset(folder, "test", with_thoughts=False, is_open=True))
    results["open"] = measure_open(model, prompts, open_tests, recipe, max_new_tokens=longest)
    deep = [tests[index] for index in deep_indices(tests, recipe)]
    if variant.block == "latents":
        answers = answer_questions(model, prompts, deep, max_new_tokens=longest, batch_size=256)
        latents = np.stack([np.asarray(answer.latents) for answer in answers])
        results["interventions"] = measure_interventions(model, prompts, deep, latents, recipe.seed)
    results["by_num_latents"] = {}
    for num_latents in variant.test_num_latents:
        other = dataclasses.replace(prompts, num_latents=num_latents)
        answers = answer_questions(model, other, deep, max_new_tokens=longest, batch_size=256)
        results["by_num_latents"][str(num_latents)] = accuracy(answers, deep)
    record = {**results, "train_seconds": train_seconds, "num_updates": variant.num_updates}
    write_atomically(folder.arm(variant.name) / "results.json", json.dumps(record, indent=1) + "\n")


def flops_per_update(folder: DemoFolder, recipe: DemoRecipe, variant: Variant) -> float:
    """Model FLOPs of an update on a batch of average length; a latent counts as a position, rolled out or given.

    With a `bottleneck_share`, rows are read a second time without their clips. The vision tower is frozen and its features are
    cached: it costs nothing. See [`~storm_hf.training.flops.training_flops`].
    """
    model, config, processor = _start(folder, recipe, variant)
    freeze_vision(model)
    rows = data.dataset(folder, "train", with_thoughts=False)
    rows = with_reasoning(rows.select(range(min(_NUM_COUNTED, len(rows)))), variant.chain)
    prompts = _encoder(variant, processor, config)
    answers = [
        len(ids) + 1 for ids in processor.tokenizer(list(rows["answer"]), add_special_tokens=False)["input_ids"]
    ]
    batch = prompts(list(rows))
    lengths = batch["attention_mask"].sum(dim=1) + torch.tensor(answers)
    clips = batch["input_ids"].eq(config.video_token_id or -1).sum(dim=1)
    again = (lengths - clips) * (variant.bottleneck_share > 0)
    tokens = TokenCounts(
        decoder=int((lengths + again).sum()),
        decoder_pairs=int((lengths.square() + again.square()).sum()),
        supervised=sum(answers),
        latents=variant.num_latents * len(rows) if variant.block == "latents" else 0,
    )
    return training_flops(count_parameters(model), tokens, attention_shape(config)) * recipe.batch_size / len(rows)


def _start(
    folder: DemoFolder, recipe: DemoRecipe, variant: Variant
) -> tuple[StormForConditionalGeneration, StormConfig, ProcessorMixin]:
    """Make the model of the base; the configuration that is given back knows the latent tokens in any case."""
    seen, processor = data.load(folder.base)
    config = copy.deepcopy(seen.config)
    config.num_latents = variant.num_latents
    config.latent_scale = config.latent_scale if variant.latent_scale is None else variant.latent_scale
    config.latent_projector = variant.latent_projector or config.latent_projector
    config.latent_attention = variant.latent_attention or config.latent_attention
    set_seed(recipe.seed)
    model = StormForConditionalGeneration(copy.deepcopy(config))
    if variant.latent_projector is None:
        model.load_state_dict(seen.state_dict())
    else:
        model.backbone.load_state_dict(seen.backbone.state_dict())
    if variant.block != "latents":
        model.config.latent_token_id = None  # placeholders are ordinary tokens with a learned embedding
    return model, config, processor


def _encoder(variant: Variant, processor: ProcessorMixin, config: StormConfig) -> PromptEncoder:
    if variant.block == "markers":
        return MarkersEncoder(processor, config, 0)
    return PromptEncoder(processor, config, 0 if variant.block == "none" else variant.num_latents)


def _trainings(variant: Variant) -> dict[str, Training]:
    return {
        "variant_align": Training(variant.align_updates, variant.align_rate),
        "variant_answer": Training(variant.answer_updates, variant.answer_rate),
    }


@dataclass(frozen=True)
class _Training:
    """The stages of one arm, whose trainings the recipe has."""

    folder: DemoFolder
    recipe: DemoRecipe
    variant: Variant
    report: Report
    sources: Sequence[DemoFolder]

    def align(self, model: StormForConditionalGeneration, processor: ProcessorMixin) -> float:
        """Train Stage I; returns its seconds."""
        settings = {"num_latents": self.variant.num_latents, **self.variant.align}
        args = self._arguments(StormAlignConfig, "align", **settings)
        trainer = StormAlignTrainer(
            model=model,
            args=args,
            train_dataset=self._rows(with_thoughts=True),
            processing_class=processor,
            target_trajectory=self.folder.data,
            callbacks=[ReportProgress(self.report)],
        )
        return train(trainer)

    def answer(self, model: StormForConditionalGeneration, prompts: PromptEncoder) -> float:
        """Train on answers; returns the seconds."""
        rows = self._rows(with_thoughts=False)
        trainer = StormAnswerTrainer(
            model=model,
            args=self._arguments(StormAnswerConfig, "answer", num_latents=prompts.num_latents),
            train_dataset=with_reasoning(rows, self.variant.chain),
            processing_class=prompts.processor,
            data_collator=AnswerCollator(prompts),
            callbacks=[ReportProgress(self.report, self.variant.align_updates)],
        )
        return train(trainer)

    def _rows(self, *, with_thoughts: bool) -> Dataset:
        return concatenate_datasets(
            [data.dataset(source, "train", with_thoughts=with_thoughts) for source in self.sources]
        )

    def _arguments(self, kind: type[StormTrainingConfig], stage: str, **settings: Any) -> Any:
        settings["bottleneck_share"] = self.variant.bottleneck_share
        folder = self.folder.arm(self.variant.name) / stage
        return training_arguments(kind, folder, self.recipe, f"variant_{stage}", **settings)
