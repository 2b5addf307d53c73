"""Trainer of both stages: prompts, batches, losses and logs. Saving, resumption and pushes are those of its base."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import (
    BitsAndBytesConfig,
    DataCollator,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import ModelOutput
from trl import SFTTrainer

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.collator import IGNORED_LABEL, AnswerCollator, check_batch, with_fewer_latents
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormConfig, add_latent_tokens
from storm_hf.model.processing_storm import find_misfit
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.arguments import EvaluationRows, Rows, load_parts, record_prompts, refuse_arguments
from storm_hf.training.checkpointing import CheckpointingTrainer
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.language_regularizer import LanguageRegularizer, choose_language
from storm_hf.training.learning_rates import rates_of_parts, split_parameter_groups
from storm_hf.training.precision import check_loss, frozen_weights_cast, gradient_error
from storm_hf.training.rank_consistency import check_ranks_match, forward_signatures, is_sharded, unshard_lm_head
from storm_hf.training.samplers import (
    LengthGroupedRows,
    RowDraws,
    find_prompts,
    known_lengths,
    needs_lengths,
    with_arrays,
)
from storm_hf.training.throughput import Batch, ThroughputMeter
from storm_hf.training.trained_weights import choose_trained_weights, freeze_halting_head
from storm_hf.training.weight_gradients import gathered_weight_gradients


_BOTTLENECK, _NUM_LATENTS = 1, 2  # what draws are for
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

logger = logging.getLogger(__name__)


class StormTrainer(CheckpointingTrainer, SFTTrainer):
    """Shared part of [`StormAlignTrainer`] and [`StormAnswerTrainer`]. Parameters in the order of [`~trl.SFTTrainer`].

    Weights that are trained are held in float32: where the model was loaded in 16 bits, it is cast, since the steps of both
    stages are smaller than the last digit of such a weight. DeepSpeed and FSDP hold masters of their own.

    Args:
        model (`str`, [`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            A STORM, or the name or folder of one, of a plain video-language checkpoint or of an adapter, which is loaded as the
            scripts load it: in float32, an adapter merged. `args.model_init_kwargs` takes the fields of
            [`~storm_hf.StormModelConfig`] for that.
        args ([`StormTrainingConfig`], *optional*):
            Configuration of the run.
        data_collator (`Callable`, *optional*):
            By default the collator of the stage.
        train_dataset ([`~datasets.Dataset`]):
            Rows to train on.
        eval_dataset ([`~datasets.Dataset`], *optional*):
            Rows of another split.
        processing_class ([`~transformers.ProcessorMixin`], *optional*):
            The processor. By default that of the model's name. Latent tokens are added if they are missing, and its template
            writes the run's number of latents from then on.
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
            Refused: it would quantize the projector and the vision tower too. `load_in_4bit` of
            [`~storm_hf.StormModelConfig`] quantizes the language model alone.
        peft_config ([`~peft.PeftConfig`], *optional*):
            An adapter to train. The latent projector is trained whole beside it, and the vision tower is left out with
            `freeze_vision`.
        formatting_func (`Callable`, *optional*):
            Refused: rows are encoded as they are.
        language_dataset ([`~datasets.Dataset`], `str` or `os.PathLike`, *optional*):
            Plain rows, without a clip, that keep the model's language: `prompt` and `completion`, `messages`, or `text`. Weighted by
            `args.keep_language` and `args.language_weight`. Rows of [`~storm_hf.record_language`] hold the model to the one that
            was recorded, others to the model that is given. By default those of `args.language_dataset_name`.

    Raises:
        ConfigurationError: If one of these is not what is said here, or cannot be loaded.

    Ctrl-C finishes the running step, saves a checkpoint and ends the program ([`~storm_hf.training.resume.ExitOnInterrupt`]).
    `train(resume_from_checkpoint=True)` goes on from the newest checkpoint that was written to its end, or starts anew. A
    checkpoint whose weights do not fit the model is an error, never a warning.
    """

    # Hooks of transformers 5.24 and TRL 1.16, each overridden once, here or in CheckpointingTrainer: tests/training/test_hooks.py.

    _name = "STORM"
    _config_class: ClassVar[type[StormTrainingConfig]] = StormTrainingConfig
    _paper: ClassVar[dict[str, str]] = {
        "title": "STORM: Internalized Modeling for Spatial-Temporal Reasoning in Video-Language Models",
        "id": "2605.26014",
    }

    _batch_columns: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "labels")
    _num_rows_in_batch: torch.Tensor | None = None
    _has_warned_of_error = False

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: StormTrainingConfig | None = None,
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
        language_dataset: Dataset | str | os.PathLike[str] | None = None,
    ) -> None:
        args = self._config_class(f"storm-{self._stage}") if args is None else args
        refuse_arguments(args, self._config_class, train_dataset, quantization_config, formatting_func)
        plain_rows = choose_language(language_dataset, args)
        model, processing_class, args = load_parts(model, processing_class, args, data_collator)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or self._default_collator(model, args, processing_class, train_dataset),
            train_dataset=self.select_rows(train_dataset),
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            peft_config=self._choose_trained(model, args, peft_config),
        )
        self._make_ready(plain_rows)

    def _choose_trained(
        self, model: PreTrainedModel | PeftModel, args: StormTrainingConfig, peft_config: PeftConfig | None
    ) -> PeftConfig | None:
        self.prepare_model(model, args, peft_config)
        return choose_trained_weights(model, peft_config, args)

    def _make_ready(self, plain_rows: Dataset | None) -> None:
        """Write the form of the prompts, and make the meter, the draws of rows, and what keeps the language."""
        self._agree_on_prompt()
        self._check_drawn_latents()
        config, args, accelerator = self.model.config, self.args, self.accelerator
        self._meter = ThroughputMeter.of_run(self.model, args)
        self._row_draws = RowDraws(args, accelerator)
        self._frozen_casts: dict[torch.Tensor, torch.Tensor] = {}
        self._language = LanguageRegularizer.of_run(plain_rows, self.processing_class, config, args, accelerator)

    # --- To be extended by a stage, beside `stage_loss` and `save_beside` ----------------------------------------------

    def select_rows(self, rows: Rows) -> Rows:
        """Leave out what the stage does not read of the training rows."""
        return rows

    def prepare_model(
        self, model: PreTrainedModel | PeftModel, args: StormTrainingConfig, peft_config: PeftConfig | None
    ) -> None:
        """Prepare the model before TRL sees it: a halting head is frozen."""
        freeze_halting_head(model)

    def make_collator(self, prompts: PromptEncoder, rows: Rows, args: StormTrainingConfig) -> DataCollator:
        """Make the default collator of the stage."""
        return AnswerCollator(prompts)

    def begin_batch(self, batches: list[Batch], device: torch.device) -> None:
        """Prepare for an accumulated batch, of which these are the micro-batches of this process."""

    def begin_run(self, is_resumed: bool) -> None:
        """Record what the model says on plain rows before it is trained."""
        if self._language is not None:
            self._language.record(self.model, self.processing_class, is_resumed)

    # --- Prompts -----------------------------------------------------------------------------------------------------

    def _default_collator(
        self,
        model: PreTrainedModel | PeftModel,
        args: StormTrainingConfig,
        processing_class: ProcessorMixin,
        rows: Rows,
    ) -> DataCollator:
        num_latents = model.config.num_latents if args.num_latents is None else args.num_latents
        prompts = PromptEncoder(processing_class, model.config, num_latents, args.question_style)
        return self.make_collator(prompts, rows, args)

    def _agree_on_prompt(self) -> None:
        """Write the form of the prompts into the model's configuration and the processor, and compare their latent tokens.

        With `num_latents=0`, for direct answers, both keep the K that they have. A collator of one's own is known by K alone.

        Raises:
            ConfigurationError: If the processor has other ids for the latent tokens than the model.
        """
        config, num_latents = self.model.config, self.args.num_latents
        prompts = find_prompts(self.data_collator)
        if prompts is not None and self.train_dataset is not None and config.model_type == StormConfig.model_type:
            record_prompts(prompts, self.train_dataset, config)
            return
        if num_latents:
            config.num_latents = num_latents
        if isinstance(self.processing_class, ProcessorMixin) and num_latents != 0:
            add_latent_tokens(self.processing_class, config.num_latents)
            if misfit := find_misfit(self.processing_class, config):
                raise ConfigurationError(misfit)

    def _check_drawn_latents(self) -> None:
        """Refuse a range of K that the model cannot be trained with.

        Raises:
            ConfigurationError: If it is empty, or a latent is made from a stretch of the clip that depends on K.
        """
        fewest, config = self.args.min_num_latents, self.model.config
        if fewest is None:
            return
        most = config.num_latents if self.args.num_latents is None else self.args.num_latents
        if fewest > most:
            raise ConfigurationError(f"`min_num_latents` must be `num_latents` = {most} or less, got {fewest}.")
        if config.latent_attention == "step":
            raise ConfigurationError(
                "`min_num_latents` cuts later latents off, and with `latent_attention='step'` earlier ones would then be made from "
                "other stretches of the clip. Leave it out, or train with 'full'."
            )

    # --- Optimizer ---------------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer as `Trainer` does, with groups for the parts that have a learning rate of their own."""
        is_given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if not is_given and (rates := rates_of_parts(self.args)):
            split_parameter_groups(optimizer, self.accelerator.unwrap_model(self.model), rates)
        return optimizer

    # --- Batches -----------------------------------------------------------------------------------------------------

    def _get_dataloader(self, dataset: Rows, *args: object, **kwargs: object) -> DataLoader:
        return super()._get_dataloader(with_arrays(dataset), *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Rows | None = None) -> Sampler | None:
        """Order rows as `Trainer` does, by the lengths of rows that hold no tokens yet."""
        rows, args = self.train_dataset if train_dataset is None else train_dataset, self.args
        if not needs_lengths(rows, args):
            return super()._get_train_sampler(train_dataset)
        lengths = known_lengths(rows, args, self.data_collator)
        if args.train_sampling_strategy == "batch_rebalance":
            return super()._get_train_sampler(Dataset.from_dict({args.length_column_name: lengths}))
        batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return LengthGroupedRows(lengths, batch_size, args.seed if args.data_seed is None else args.data_seed)

    def _get_eval_sampler(self, eval_dataset: Rows) -> Sampler | None:
        """Evaluate in the order of the rows, whatever the order of training."""
        if not needs_lengths(eval_dataset, self.args):
            return super()._get_eval_sampler(eval_dataset)
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | int | None]:
        """Take the batches of one step, as `Trainer` does, and count them."""
        self._meter.run()
        batches, num_items = super().get_batch_samples(self._checked(epoch_iterator), num_batches, device)
        self._meter.observe(batches)
        return batches, num_items

    def _checked(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Take batches, timed, and refuse one that lacks what the losses need."""
        for batch in self._meter.waiting(batches):
            check_batch(batch, self._batch_columns, self.data_collator)
            yield batch

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> torch.Tensor | int | None:
        """Count supervised tokens, as `Trainer` does, and rows, over the whole accumulated batch and all processes."""
        self._row_draws.begin()
        if self._language is not None:
            self._language.begin(len(batch_samples), self.state.global_step)
        num_rows = torch.tensor([sum(len(batch["input_ids"]) for batch in batch_samples)], device=device)
        num_batches = self.args.gradient_accumulation_steps
        routes = forward_signatures(batch_samples, self.model.config.latent_token_id, num_batches, device)
        of_ranks = self.accelerator.gather(torch.cat([num_rows, routes.flatten()])[None])  # one message for both
        self._num_rows_in_batch = of_ranks[:, 0].sum()
        if len(of_ranks) > 1 and is_sharded(self.model):
            check_ranks_match(of_ranks[:, 1:].unflatten(1, routes.shape))
        num_items = super()._get_num_items_in_batch(batch_samples, device)
        if batch_samples:
            self.begin_batch(batch_samples, device)
        return num_items

    # --- Loss --------------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Compute the loss of the stage, and in training add that of plain rows."""
        if self.model.training and self.args.min_num_latents is not None:
            inputs = with_fewer_latents(inputs, self._draw_num_latents(self.args.min_num_latents), self.model.config)
        found = self.stage_loss(model, inputs, return_outputs, num_items_in_batch)
        if self._language is None or not self.model.training:
            return found
        # Not the wrapper: DistributedDataParallel would take the weights that plain rows do not use for unused.
        whole = self.accelerator.unwrap_model(model)
        added, losses = self._language(whole, is_accumulated=num_items_in_batch is not None)
        self._log_means(losses)
        return (found[0] + added, found[1]) if isinstance(found, tuple) else found + added

    def _draw_num_latents(self, fewest: int) -> int:
        """Draw K of the running step from (seed, step) alone: the same on every process and after a resumption."""
        generator = np.random.default_rng([self.args.seed, self.state.global_step, 0, _NUM_LATENTS])
        num_latents = int(generator.integers(fewest, self.model.config.num_latents + 1))
        self._metrics["train"]["num_latents"].append(num_latents)
        return num_latents

    def stage_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Compute TRL's loss and metrics. No position before the first supervised one is projected to the vocabulary."""
        inputs = keep_supervised(inputs)
        unshard_lm_head(self.model)
        if self.model.training and self.args.rollout_gradient != RolloutGradient():
            inputs["rollout_gradient"] = self.args.rollout_gradient
        if self.model.training and self.args.bottleneck_share:
            inputs["latent_bottleneck"] = self._bottlenecked_rows(len(inputs["input_ids"]))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _bottlenecked_rows(self, num_rows: int) -> torch.Tensor:
        """Draw the rows whose answer learns of the clip through the latents alone."""
        draws = [generator.random() for generator in self.row_generators(num_rows, _BOTTLENECK)]
        return torch.tensor(draws) < self.args.bottleneck_share

    def row_scale(self, num_rows: int, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | float:
        """One over the rows of the whole accumulated batch; `Trainer` averages gradients over processes."""
        if num_items_in_batch is None or self._num_rows_in_batch is None:
            return 1 / num_rows
        return self.accelerator.num_processes / self._num_rows_in_batch

    def row_generators(self, num_rows: int, *purpose: int) -> list[np.random.Generator]:
        """Make a generator for each row of the micro-batch; see [`~storm_hf.training.samplers.RowDraws`]."""
        return self._row_draws.generators(num_rows, self.state.global_step, *purpose)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Evaluate on one batch; labels are cut to the columns that logits are computed of."""
        check_batch(inputs, self._batch_columns, self.data_collator)
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return loss, logits, None if labels is None else keep_supervised({"labels": labels})["labels"]

    def training_step(
        self, model: nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Train on one batch; before the first one, log the error of an inexact gradient.

        Raises:
            StageError: If the loss is not finite. `Trainer` would wait for the device here as well, and log 0 instead.
        """
        if not self._has_warned_of_error:
            self._has_warned_of_error = True
            self._warn_of_gradient_error()
        with self._weights_read_once():
            loss = super().training_step(model, inputs, num_items_in_batch)
        check_loss(loss, self.state.global_step + 1, inputs, self.model)
        return loss

    def _weights_read_once(self) -> ExitStack:
        """Cast and differentiate a weight once for all passes of a step, where it lies on this process in one piece.

        Gradients are gathered on a processor, where that was measured. On a GPU single-token passes wait for their launches,
        which Python's part in them would delay. An adapter's matrices are too small to gain by it.
        """
        once = ExitStack()
        if self.is_deepspeed_enabled or self.args.torch_compile or is_sharded(self.model):
            return once
        if (dtype := _AUTOCAST.get(self.accelerator.mixed_precision)) is not None:
            once.enter_context(frozen_weights_cast(self.model, dtype, self._frozen_casts))
        has_adapter = is_peft_model(self.model) or getattr(self.model.config, "thought_adapter", None) is not None
        if self.args.device.type == "cpu" and not has_adapter:
            once.enter_context(gathered_weight_gradients(self.model))
        return once

    def _warn_of_gradient_error(self) -> None:
        gradient = self.args.rollout_gradient
        if gradient == RolloutGradient():
            return
        if is_sharded(self.model):
            logger.warning("%s: its error is not measured, since the weights lie on several processes.", gradient)
            return
        batch = self._prepare_inputs(self.data_collator([next(iter(self.train_dataset))]))
        batch.pop("target_trajectory", None)
        with self.compute_loss_context_manager():
            error = gradient_error(self.accelerator.unwrap_model(self.model), batch, gradient)
        self.log({"rollout_gradient_error": error.relative, "rollout_gradient_cosine": error.cosine})

    # --- Logs --------------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the throughput beside the loss."""
        if "loss" in logs:
            logs.update(self._meter.metrics(self.accelerator.gather, self.args.device))
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: EvaluationRows | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate, off the clock."""
        self._meter.stop()
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate or predict, and name the parts of the loss by the prefix of these rows, where TRL mixes those of all."""
        parts = self._metrics["eval"]
        parts.clear()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        means = {f"{metric_key_prefix}_{name}": sum(values) / len(values) for name, values in parts.items()}
        parts.clear()
        return output._replace(metrics={**(output.metrics or {}), **means})

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Save, off the clock."""
        self._meter.stop()
        super()._save_checkpoint(model, trial)

    def _log_means(self, values: dict[str, torch.Tensor]) -> None:
        """Log the mean of each value over processes, and over the steps until the next log; waits for the device once."""
        mode = "train" if self.model.training else "eval"
        stacked = torch.stack([value.detach().float() for value in values.values()])
        means = self.accelerator.gather_for_metrics(stacked[None]).mean(dim=0)
        for name, mean in zip(values, means.tolist(), strict=True):
            self._metrics[mode][name].append(mean)


def keep_supervised(inputs: dict[str, Any]) -> dict[str, Any]:
    """Cut the labels to the columns from the first supervised one on, and ask the body for the states of those alone.

    Args:
        inputs (`dict`):
            Model inputs with `labels` of shape `(batch_size, sequence_length)`.
    """
    labels = inputs["labels"]
    first = int((labels != IGNORED_LABEL).any(dim=0).int().argmax())
    start = max(first - 1, 0)  # the state before a token predicts it
    return {**inputs, "labels": labels[:, start:], "states_to_keep": labels.shape[1] - start}
