"""Stage I: align the latents with what thought videos show, and answer from them.

L = L_answer + align_weight * L_align, and step_words_weight * L_words if latents learn to be read as words. The answer's loss is
divided by the supervised tokens, the others by the rows, each of the whole accumulated batch over all processes, so that one batch of
four equals four accumulated batches of one.

Axes: B batch, K latent steps, D hidden size.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    DataCollator,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from transformers.utils import ModelOutput

from storm_hf.align.collator import AlignCollator
from storm_hf.align.config import StormAlignConfig
from storm_hf.align.objective import Alignment, trajectory_alignment
from storm_hf.align.step_words import StepWords, read_step_words
from storm_hf.align.targets import KnownTargets, choose_targets
from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.latent_words import collected_states, states_of_thought
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormForConditionalGeneration
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.training.arguments import EvaluationRows, Rows
from storm_hf.training.collected_latents import collected_latents
from storm_hf.training.rank_consistency import gathered_lm_head
from storm_hf.training.throughput import Batch
from storm_hf.training.trainer import StormTrainer


class StormAlignTrainer(StormTrainer):
    """Aligns the latents with thought videos (arXiv 2605.26014, Stage I). Parameters in the order of [`~trl.SFTTrainer`].

    Args:
        model (`str`, [`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            A STORM, such as `from_backbone` makes, or a checkpoint's name or folder; see [`StormTrainer`].
        args ([`StormAlignConfig`], *optional*):
            Configuration of the run.
        data_collator (`Callable`, *optional*):
            By default an [`~storm_hf.align.collator.AlignCollator`].
        train_dataset ([`~datasets.Dataset`]):
            Rows of a storm-thoughts data set, with `thought_features`.
        eval_dataset ([`~datasets.Dataset`], *optional*):
            Rows of another split.
        processing_class ([`~transformers.ProcessorMixin`], *optional*):
            The processor with latent tokens. By default that of the model.
        compute_loss_func (`Callable`, *optional*):
            Replaces the answer's loss; see [`~trl.SFTTrainer`].
        compute_metrics (`Callable`, *optional*):
            Metrics of an evaluation, from logits and labels of the answers' columns.
        callbacks (list of [`~transformers.TrainerCallback`], *optional*):
            Callbacks beside the default ones.
        optimizers (`tuple`, *optional*, defaults to `(None, None)`):
            An optimizer and a scheduler.
        optimizer_cls_and_kwargs (`tuple`, *optional*):
            Class of the optimizer and its arguments.
        preprocess_logits_for_metrics (`Callable`, *optional*):
            Reduces logits before they are gathered for `compute_metrics`.
        quantization_config ([`~transformers.BitsAndBytesConfig`], *optional*):
            Refused; see [`StormTrainer`].
        peft_config ([`~peft.PeftConfig`], *optional*):
            An adapter to train; it also gets the latent projector. See [`StormTrainer`].
        formatting_func (`Callable`, *optional*):
            Refused; see [`StormTrainer`].
        target_trajectory ([`~storm_hf.TargetTrajectory`], `str` or `Path`, *optional*):
            The targets, or the data set, a folder or a name on the Hub, that they were saved with. By default the one that
            `train_dataset` was loaded from by [`~storm_hf.load_rows`], and where it has none, or `args` ask for others,
            targets fitted to `train_dataset`. They are saved with the model.
        language_dataset ([`~datasets.Dataset`], `str` or `os.PathLike`, *optional*):
            Plain rows that keep the model's language; see [`StormTrainer`].
    """

    _name = "STORM Stage I"
    _stage = "align"
    _config_class = StormAlignConfig
    _tag_names: ClassVar[list[str]] = ["trl", "storm", "storm-align"]
    _batch_columns: ClassVar[tuple[str, ...]] = (*StormTrainer._batch_columns, "target_trajectory")

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: StormAlignConfig | None = None,
        data_collator: DataCollator | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: EvaluationRows | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        compute_loss_func: Callable | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
        formatting_func: Callable[[dict], str] | None = None,
        *,
        target_trajectory: TargetTrajectory | str | os.PathLike[str] | None = None,
        language_dataset: Dataset | str | os.PathLike[str] | None = None,
    ) -> None:
        self._given_targets = target_trajectory
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            quantization_config=quantization_config,
            peft_config=peft_config,
            formatting_func=formatting_func,
            language_dataset=language_dataset,
        )

    @property
    def target_trajectory(self) -> TargetTrajectory | None:
        """Targets of the collator; a collator of one's own may have none."""
        targets = getattr(self.data_collator, "trajectory", self._given_targets)
        return targets if isinstance(targets, TargetTrajectory) else None

    @cached_property
    def _known_targets(self) -> KnownTargets:
        return KnownTargets(self.accelerator)

    def make_collator(self, prompts: PromptEncoder, rows: Rows, args: StormAlignConfig) -> AlignCollator:
        """Make the collator, with targets of the latents."""
        targets = choose_targets(self._given_targets, rows, prompts.num_latents, args)
        words = StepWords(prompts.processor.tokenizer, prompts.num_latents) if args.step_words_weight else None
        return AlignCollator(AnswerCollator(prompts), targets, words)

    def begin_batch(self, batches: list[Batch], device: torch.device) -> None:
        """Gather the targets of the whole accumulated batch."""
        self._known_targets.begin([batch["target_trajectory"].to(device) for batch in batches])

    def save_beside(self, folder: Path) -> None:
        """Save the statistics that diagnostics read."""
        if self.target_trajectory is not None:
            self.target_trajectory.save(folder)

    def stage_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Add the alignment of the latents to TRL's loss of the answer."""
        inputs = dict(inputs)
        targets, words = inputs.pop("target_trajectory"), inputs.pop("step_words", None)
        whole = self.accelerator.unwrap_model(model)
        of_thought: AbstractContextManager[list[torch.Tensor]] = nullcontext([])
        if self.args.step_words_weight:
            of_thought = collected_states(whole)
        with collected_latents(whole) as rollout, of_thought as states:
            answer_loss, outputs = self._answer_loss(
                model, {**inputs, **self._forcing(targets)}, return_outputs, num_items_in_batch
            )
        alignment = self._align(rollout[0], targets)
        align_loss = alignment.loss.sum() * self.row_scale(len(targets), num_items_in_batch)
        num_parts = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        self._log_parts(answer_loss * num_parts, alignment)
        loss = answer_loss + self.args.align_weight * align_loss
        if self.args.step_words_weight:
            words_loss = self._words_loss(whole, states_of_thought(states, targets.shape[1]), words).sum()
            loss = loss + self.args.step_words_weight * words_loss * self.row_scale(len(targets), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _answer_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool,
        num_items: torch.Tensor | int | None,
    ) -> tuple[torch.Tensor, ModelOutput | None]:
        found = super().stage_loss(model, inputs, return_outputs, num_items)
        return found if isinstance(found, tuple) else (found, None)

    def _align(self, latents: torch.Tensor, targets: torch.Tensor) -> Alignment:
        """Compare latents with their targets, and with those of the whole accumulated batch."""
        known, first = self._known_targets.take(targets)
        known = known[:, : targets.shape[1]]  # the first ones, where K is drawn
        kind, reduction = self.args.align_loss, self.args.align_reduction
        return trajectory_alignment(latents, targets, kind, reduction, known=known, first=first)

    def _words_loss(
        self, model: StormForConditionalGeneration, states: torch.Tensor, words: torch.Tensor | None
    ) -> torch.Tensor:
        """Read the words of each step from the states that latents are made from; the loss of each row."""
        if words is None:
            raise ConfigurationError(
                "`step_words_weight` needs `step_words` in each batch, which the default collator makes, got none. Give it `words`."
            )
        logits = model.compute_logits(states, gathered_lm_head(model))
        reading = read_step_words(logits, words[:, : states.shape[1]])
        self._log_means({"words_loss": reading.loss.mean(), "words_recall": reading.recall})
        return reading.loss

    def _forcing(self, targets: torch.Tensor) -> dict[str, Any]:
        """Choose the inputs of the latent slots."""
        if self.args.forcing == "teacher":
            return {"forced_latents": self._disturbed(targets)}
        if self.args.forcing == "rollout" or not self.model.training:
            return {}
        share = self.state.global_step / max(self.state.max_steps, 1)  # of slots that are fed the model's own latent
        draws = np.stack([generator.random(targets.shape[1]) for generator in self.row_generators(len(targets))])
        is_own = torch.from_numpy(draws < share).to(targets.device)  # (B, K)

        def mix(step: int, latent: torch.Tensor) -> torch.Tensor:
            return torch.where(is_own[:, step, None], latent, targets[:, step].to(latent.dtype))

        return {"latent_intervention": mix}

    def _disturbed(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets with noise, in training: the model meets slots as wrong as its own latents will be."""
        if not self.model.training or self.args.teacher_noise == 0:
            return targets
        generators = self.row_generators(len(targets))
        noise = np.stack([generator.standard_normal(targets.shape[1:], dtype=np.float32) for generator in generators])
        return targets + self.args.teacher_noise * torch.from_numpy(noise).to(targets)

    def _log_parts(self, answer_loss: torch.Tensor, alignment: Alignment) -> None:
        self._log_means({"answer_loss": answer_loss, "align_loss": alignment.loss.mean(), **alignment.gauges})
