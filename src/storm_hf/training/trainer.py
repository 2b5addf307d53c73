"""The trainer that both stages are: TRL's supervised trainer, with exact resumption and a card of our own."""

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
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
from trl import SFTTrainer

from storm_hf.errors import CheckpointError, ConfigurationError, StageError
from storm_hf.inputs.collator import IGNORED_LABEL, AnswerCollator
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.model import StormConfig, add_latent_tokens
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.model.processing_storm import find_misfit
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.adapter_checkpoints import AdapterCheckpoints
from storm_hf.training.arguments import load_parts, record_prompts, refuse_arguments
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.draws import RowDraws
from storm_hf.training.peft import check_adapter_trains, complete_adapter
from storm_hf.training.precision import explain_loss, gradient_error, train_whole_in_float32
from storm_hf.training.publishing import Publishing
from storm_hf.training.rank_consistency import check_ranks_match, forward_signatures, is_sharded, unshard_lm_head
from storm_hf.training.resume import ExitOnInterrupt, StopOnInterrupt, claimed_run, newest_complete_checkpoint
from storm_hf.training.samplers import RowReading, find_prompts
from storm_hf.training.throughput import ThroughputMetrics
from storm_hf.training.whole_files import WholeFiles
from storm_hf.video.library_backends import use_video_backend


_BOTTLENECK = 1  # what draws are for

logger = logging.getLogger(__name__)


class StormTrainer(ThroughputMetrics, RowReading, RowDraws, WholeFiles, AdapterCheckpoints, Publishing, SFTTrainer):
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

    Raises:
        ConfigurationError: If one of these is not what is said here, or cannot be loaded.

    Ctrl-C finishes the running step, saves a checkpoint and ends the program ([`~storm_hf.training.resume.ExitOnInterrupt`]).
    `train(resume_from_checkpoint=True)` goes on from the newest checkpoint that was written to its end, or starts anew. A
    checkpoint whose weights do not fit the model is an error, never a warning.
    """

    _name = "STORM"
    _config_class: ClassVar[type[StormTrainingConfig]] = StormTrainingConfig
    _tag_names: ClassVar[list[str]] = ["trl", "storm"]
    _paper: ClassVar[dict[str, str]] = {
        "title": "STORM: Internalized Modeling for Spatial-Temporal Reasoning in Video-Language Models",
        "id": "2605.26014",
    }

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: StormTrainingConfig | None = None,
        data_collator: DataCollator | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset
        | IterableDataset
        | DatasetDict
        | IterableDatasetDict
        | dict[str, Dataset | IterableDataset]
        | None = None,
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
    ) -> None:
        args = self._config_class(f"storm-{self._stage}") if args is None else args
        refuse_arguments(
            args, self._config_class, quantization_config=quantization_config, formatting_func=formatting_func
        )
        use_video_backend(args.video_backend)
        model, processing_class, args = load_parts(
            model, processing_class, args, has_collator=data_collator is not None
        )
        if not is_peft_model(model):  # what an adapter trains, PEFT has chosen
            freeze_vision(model, args.freeze_vision)
            if peft_config is None:
                train_whole_in_float32(model, args)
            else:
                peft_config = complete_adapter(peft_config, model, args.freeze_vision)
        if data_collator is None:
            num_latents = model.config.num_latents if args.num_latents is None else args.num_latents
            prompts = PromptEncoder(processing_class, model.config, num_latents, args.question_style)
            data_collator = self._collator(prompts, train_dataset, args)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=self._rows_of_stage(train_dataset),
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            peft_config=peft_config,
        )
        self._agree_on_prompt()
        if is_peft_model(self.model):
            check_adapter_trains(self.model, args.freeze_vision)
        if not any(isinstance(callback, StopOnInterrupt) for callback in callbacks or ()):
            self.add_callback(ExitOnInterrupt())
        # TRL turns this on for an adapter under ZeRO-3; the rollout would lose the gradient through its keys and values.
        for checkpointing in (args.activation_checkpointing_kwargs, args.gradient_checkpointing_kwargs):
            checkpointing["use_reentrant"] = False
        self._num_rows_in_batch: torch.Tensor | int | None = None
        self._has_warned_of_error = False

    def _collator(self, prompts: PromptEncoder, rows: Any, args: Any) -> Any:
        """Make the default collator of the stage."""
        return AnswerCollator(prompts)

    def _rows_of_stage(self, rows: Any) -> Any:
        """Leave out what the stage does not read of the training rows."""
        return rows

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

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` means the newest complete checkpoint in `output_dir`, if there is one.

        Raises:
            CheckpointError: If another training writes to `output_dir`, or it holds checkpoints that a new run would delete.
        """
        choice = str(resume_from_checkpoint).lower()  # a command line says "true"
        if choice in ("true", "false"):
            newest = newest_complete_checkpoint(self.args.output_dir) if choice == "true" else None
            resume_from_checkpoint = None if newest is None else str(newest)
        try:
            with claimed_run(self.args, is_resumed=resume_from_checkpoint is not None):
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, StopOnInterrupt):
                    callback.release()

    def end(self) -> None:
        """Finish the run: the last thing that a script calls.

        What holds the processes' group is let go before the group ends. Freed later, with the interpreter's lock held, it
        would end the group's threads, and one that waits for the lock would never end: seen with gloo in one run of fifty.
        """
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()

    def _run_epoch(self, **kwargs: Any) -> None:
        """Train for an epoch; nothing, when a finished run is resumed, where `Trainer` would take one more step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss and metrics, with no position before the first supervised one projected to the vocabulary."""
        inputs = keep_supervised(inputs)
        unshard_lm_head(self.model)
        if self.model.training and self.args.rollout_gradient != RolloutGradient():
            inputs["rollout_gradient"] = self.args.rollout_gradient
        if self.model.training and self.args.bottleneck_share:
            inputs["latent_bottleneck"] = self._bottlenecked_rows(len(inputs["input_ids"]))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _bottlenecked_rows(self, num_rows: int) -> torch.Tensor:
        """Draw the rows whose answer learns of the clip through the latents alone."""
        draws = [generator.random() for generator in self._row_generators(num_rows, _BOTTLENECK)]
        return torch.tensor(draws) < self.args.bottleneck_share

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Evaluate on one batch; labels are cut to the columns that logits are computed of."""
        loss, logits, labels = super().prediction_step(model, inputs, *args, **kwargs)
        return loss, logits, None if labels is None else keep_supervised({"labels": labels})["labels"]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Train on one batch; before the first one, log the error of an inexact gradient.

        Raises:
            StageError: If the loss is not finite. `Trainer` would wait for the device here as well, and log 0 instead.
        """
        if not self._has_warned_of_error:
            self._has_warned_of_error = True
            self._warn_of_gradient_error()
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss).all():
            raise StageError(explain_loss(float(loss), self.state.global_step + 1, inputs, self.model))
        return loss

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

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Count supervised tokens, as `Trainer` does, and rows, over the whole accumulated batch and all processes."""
        num_rows = torch.tensor([sum(len(batch["input_ids"]) for batch in batch_samples)], device=device)
        num_batches = self.args.gradient_accumulation_steps
        routes = forward_signatures(batch_samples, self.model.config.latent_token_id, num_batches, device)
        of_ranks = self.accelerator.gather(torch.cat([num_rows, routes.flatten()])[None])  # one message for both
        self._num_rows_in_batch = of_ranks[:, 0].sum()
        if len(of_ranks) > 1 and is_sharded(self.model):
            check_ranks_match(of_ranks[:, 1:].unflatten(1, routes.shape))
        return super()._get_num_items_in_batch(batch_samples, device)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Turn what `Trainer` would only warn of into an error: a run must not go on with half its weights."""
        missing = set(load_result.missing_keys) - set(self.model._keys_to_ignore_on_save or ())
        for pair in self.model.all_tied_weights_keys.items():  # of tied weights, a checkpoint holds one
            if not missing.issuperset(pair):
                missing.difference_update(pair)
        unexpected = set(load_result.unexpected_keys)
        if missing or unexpected:
            raise CheckpointError(
                f"The checkpoint does not fit the model: it misses {_shortened(missing)} and holds {_shortened(unexpected)} "
                "that the model does not have. Save checkpoints with `save_original_format=False`, the default of STORM, "
                "and resume with the backbone that made them."
            )
        self.model.tie_weights()

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


def _shortened(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{len(names)} weights" + (f" ({shown}{', ...' if len(names) > 3 else ''})" if names else "")


def freeze_vision(model: StormForConditionalGeneration, is_frozen: bool = True) -> None:
    """Freeze the backbone's vision tower and merger, whatever the backbone calls them."""
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    own = {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    own |= {id(parameter) for parameter in model.model.latent_projector.parameters()}
    own |= {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    for parameter in model.parameters():
        if id(parameter) not in decoder | own:
            parameter.requires_grad_(not is_frozen)
