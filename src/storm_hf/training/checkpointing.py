"""Trainer whose checkpoints are whole or recognisably not, whose runs go on exactly, and whose pushes carry a card.

It knows nothing of a loss. [`StormTrainer`] adds batches, losses and logs.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch
from accelerate.utils import is_peft_model
from huggingface_hub import CommitInfo
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import HubStrategy, SaveStrategy, TrainOutput

from storm_hf.atomic import flush_tree, move_files
from storm_hf.checkpoints.adapter import save_storm_config, write_full_names
from storm_hf.errors import CheckpointError, first_line
from storm_hf.hub.card_metadata import is_hub_name
from storm_hf.hub.model_card import Stage, facts_of_model, write_card
from storm_hf.pipeline.lock import locked
from storm_hf.pipeline.paths import origin_of
from storm_hf.training.peft import (
    check_adapter_fits,
    check_adapter_trains,
    check_optimizer_trains,
    exact_weights,
    train_in_float32,
)
from storm_hf.training.publishing import Destination, TrainerPushes
from storm_hf.training.resume import (
    ExitOnInterrupt,
    StopOnInterrupt,
    check_checkpoint,
    claimed_run,
    newest_complete_checkpoint,
)
from storm_hf.training.samplers import set_sampler_epoch


_UNFINISHED = ".model.unfinished"
_LOCK = ".locks/model"
_CUT_OFF = "PytorchStreamReader"  # in torch's error about a file that it cannot read
_NOT_ALLOWED = "Unsupported global"  # in its error about a class that `weights_only` does not load
_OTHER_SIZE = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\) from checkpoint.*?torch\.Size\((.*?)\)")
_NOT_SENT = "training_args.bin\n"  # a pickle that other ways of uploading a folder shall leave out, too

logger = logging.getLogger(__name__)


class CheckpointingTrainer(Trainer):
    """Saves, resumes, adapts and publishes: the lower half of a trainer, which has one of TRL's trainers as its second base.

    A checkpoint is marked as complete after the files of every process, and a saved model is replaced by whole files only. An
    adapter is saved alone, with what it takes to open it. Pushes follow the rules of `storm push`.

    Args:
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model.
        args ([`~transformers.TrainingArguments`]):
            Configuration of the run: a [`StormTrainingConfig`] or a [`StormGRPOConfig`].
        callbacks (list of [`~transformers.TrainerCallback`], *optional*):
            Callbacks beside the default ones. Ctrl-C ends the program unless there is a [`StopOnInterrupt`] among them.
        others:
            Other arguments of TRL's trainer.
    """

    # Hooks of transformers 5.24 and TRL 1.16, each overridden once, here or in StormTrainer: tests/training/test_hooks.py.

    _stage: ClassVar[Stage] = "base"
    _tag_names: ClassVar[list[str]] = ["trl", "storm"]
    _dataset_name: str | None = None

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: TrainingArguments,
        callbacks: list[TrainerCallback] | None = None,
        **others: object,
    ) -> None:
        exact = exact_weights(model)
        super().__init__(model=model, args=args, callbacks=callbacks, **others)
        self._pushes = TrainerPushes(Path(args.output_dir))
        if is_peft_model(self.model):
            self._train_adapter(exact)
        if not any(isinstance(callback, StopOnInterrupt) for callback in callbacks or ()):
            self.add_callback(ExitOnInterrupt())

    def _train_adapter(self, exact: dict[str, torch.Tensor]) -> None:
        """Train an adapter in float32, from the weights that TRL may have rounded, and save it alone."""
        check_adapter_trains(self.model, self.args.freeze_vision)
        if self.optimizer is not None:
            check_optimizer_trains(self.optimizer, self.model)
        # PEFT would read the configuration of a plain base as that of a STORM, and save the embeddings as resized.
        self.model.save_pretrained = partial(self.model.save_pretrained, save_embedding_layers=False)
        # TRL turns this on under ZeRO-3; the rollout would lose the gradient through its keys and values.
        for checkpointing in (self.args.activation_checkpointing_kwargs, self.args.gradient_checkpointing_kwargs):
            checkpointing["use_reentrant"] = False
        plugin = self.args.deepspeed_plugin
        if plugin is None or plugin.zero_stage != 3:  # which gathers one precision only, and needs no copy in another
            train_in_float32(self.model, exact)

    # --- Running -----------------------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: object = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train; `resume_from_checkpoint=True` means the newest complete checkpoint in `output_dir`, if there is one.

        Raises:
            CheckpointError: If another training writes to `output_dir`, or it holds checkpoints that a new run would delete, or
                `resume_from_checkpoint` names a folder that is no checkpoint.
        """
        choice = str(resume_from_checkpoint).lower()  # a command line says "true"
        if choice in ("true", "false"):
            newest = newest_complete_checkpoint(self.args.output_dir) if choice == "true" else None
            resume_from_checkpoint = None if newest is None else str(newest)
        elif resume_from_checkpoint is not None:
            check_checkpoint(str(resume_from_checkpoint))
        try:
            is_resumed = resume_from_checkpoint is not None
            model, rows = self.model.config.name_or_path, origin_of(self.train_dataset)
            with claimed_run(self.args, is_resumed, model=model, train_dataset=rows):
                self.begin_run(is_resumed)
                return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, StopOnInterrupt):
                    callback.release()

    def begin_run(self, is_resumed: bool) -> None:
        """Prepare for a run with the weights that were given, before those of a checkpoint are loaded. To be extended."""

    def end(self) -> None:
        """Finish the run: the last thing that a script calls.

        What holds the processes' group is let go before the group ends. Freed later, with the interpreter's lock held, it
        would end the group's threads, and one that waits for the lock would never end: seen with gloo in one run of fifty.
        """
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: object,
    ) -> tuple[int, int]:
        """Go on counting `num_tokens` where a resumed run's log ends; TRL would begin at 0."""
        progress = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        self._total_train_tokens = max((entry.get("num_tokens", 0) for entry in self.state.log_history), default=0)
        return progress

    def _run_epoch(self, *, epoch: int, train_dataloader: DataLoader, **others: object) -> None:
        """Train for an epoch in its own order of rows. When a finished run is resumed, `Trainer` would take one more step."""
        set_sampler_epoch(train_dataloader, epoch)
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **others)

    # --- Loading -----------------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _damage_named(resume_from_checkpoint):
            self._check_adapter(resume_from_checkpoint)
            with _sizes_compared(resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load them as `Trainer` does, and warn where a checkpoint was saved without, of which it says nothing."""
        if checkpoint is None:
            return
        if not (self.is_deepspeed_enabled or any(Path(checkpoint).glob("optimizer*"))):
            logger.warning(
                "%s was saved without its optimizer (`save_only_model`): the learning rate and the optimizer begin anew, so that the run "
                "ends with other weights than one that was not interrupted.",
                checkpoint,
            )
        with _damage_named(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_best_model(self) -> None:
        self._check_adapter(self.state.best_model_checkpoint)
        with _sizes_compared(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _check_adapter(self, checkpoint: str) -> None:
        """Refuse an adapter that is not whole; PEFT would only warn."""
        if is_peft_model(self.model) and Path(checkpoint, SAFETENSORS_WEIGHTS_NAME).is_file():
            check_adapter_fits(self.model, checkpoint)

    def _issue_warnings_after_load(self, load_result: torch.nn.modules.module._IncompatibleKeys) -> None:
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

    # --- Saving ------------------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model; files of an earlier one stay as they are until the new ones are whole.

        Args:
            output_dir (`str`, *optional*):
                The folder, by default that of the run.
        """
        folder = Path(output_dir or self.args.output_dir)
        if _internal_call:  # into a checkpoint, which is complete once its last file is there
            self._save_parts(folder)
            return
        with self._alone_in(folder):
            self._save_parts(folder / _UNFINISHED)
            self._wait_for_shards()
            if self.args.should_save:
                move_files(folder / _UNFINISHED, folder)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_parts(self, folder: Path) -> None:
        super().save_model(str(folder), _internal_call=True)
        if self.args.should_save:
            self.save_beside(folder)

    def save_beside(self, folder: Path) -> None:
        """Save what a stage keeps beside its weights. To be extended by a stage; on the process that saves alone."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save the weights, a card in the place of PEFT's, which is to be filled in, and what opens an adapter."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        self.write_card(folder)
        (folder / ".gitignore").write_text(_NOT_SENT)
        if is_peft_model(self.model):
            save_storm_config(self.model.config, folder)
            write_full_names(folder)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save this process' generators, and wait for those of the others.

        The file that marks a checkpoint as complete comes next. Without the waiting, a run that was killed in between would
        resume with other draws on the processes whose file is missing.
        """
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            flush_tree(Path(output_dir))

    @contextmanager
    def _alone_in(self, folder: Path) -> Iterator[None]:
        """Wait for another run of the same output folder that saves its model, and remove what a killed one left of it."""
        with locked(Path(self.args.output_dir, _LOCK), "model") if self.args.should_save else nullcontext():
            if self.args.should_save:
                shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
            self._wait_for_shards()
            yield

    def _wait_for_shards(self) -> None:
        """Wait for the processes that save together. A whole model is saved by the first one, which a script may call alone."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            self.accelerator.wait_for_everyone()

    # --- Publishing --------------------------------------------------------------------------------------------------

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
        **others: object,
    ) -> None:
        """Write the checkpoint's card from the run's own numbers.

        Args:
            model_name (`str`, *optional*):
                Not used: a model is named by its repository or its folder.
            dataset_name (`str`, *optional*):
                The data set on the Hub, or its folder, that the model was trained on.
            tags (`str` or `list[str]`, *optional*):
                Not used: tags are those of the stage.
            others:
                Other arguments of [`~transformers.Trainer`]'s method. Not used.
        """
        self._dataset_name = dataset_name or self._dataset_name
        if self.is_world_process_zero():
            self.write_card(Path(self.args.output_dir))

    def write_card(self, folder: Path) -> None:
        """Write the card into a folder, with what it was rendered from."""
        dataset = self._dataset_name or origin_of(self.train_dataset)
        name = self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        facts = facts_of_model(
            self.model,
            name=str(name),
            stage=self._stage,
            tags=tuple(self._tag_names),
            num_steps=self.state.global_step or None,
            bottleneck_share=getattr(self.args, "bottleneck_share", None) or None,
            datasets=(dataset,) if is_hub_name(dataset) else None,
        )
        write_card(facts, folder)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint in the background: what `storm push` would publish of it.

        A push that is refused or fails is logged and does not end the training.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if not (self.args.hub_always_push or self._pushes.is_done):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        at = f"step {self.state.global_step}"
        if self.args.save_strategy == SaveStrategy.EPOCH:
            at = f"epoch {int(self.state.epoch or 0)}"
        self._pushes.begin(Path(checkpoint_folder), self._destination(f"Training in progress, {at}"))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the model and push it: what `storm push` would publish of `output_dir`, and nothing else.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`):
                Title of the commit.
            blocking (`bool`, *optional*, defaults to `True`):
                Whether to wait until it is done.
            token (`str`, *optional*):
                Token that may write. By default `args.hub_token`.
            revision (`str`, *optional*):
                Branch. By default `args.hub_revision`, else the main one.
            private (`bool`, *optional*):
                Whether a new repository is private. By default `args.hub_private_repo`.
            kwargs:
                What `create_model_card` takes, such as `dataset_name`.

        Returns:
            [`~huggingface_hub.CommitInfo`], or its `Future` if not `blocking`. None on all processes but the first.

        Raises:
            PublicationError: If the folder holds something that must not be published.
            CheckpointError: If it is not complete.
            ServerError: If the server cannot be reached, refused, or was cut off.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token or self.args.hub_token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        destination = self._destination(commit_message or "End of training", token, revision)
        return self._pushes.push(Path(self.args.output_dir), destination, blocking=blocking)

    def _finish_current_push(self) -> None:
        self._pushes.wait()

    def _destination(self, message: str, token: str | None = None, revision: str | None = None) -> Destination:
        return Destination(
            repo=str(self.hub_model_id),
            message=message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision or "main",
        )


@contextmanager
def _damage_named(checkpoint: str) -> Iterator[None]:
    """Name a checkpoint of which a file was cut off or overwritten; torch would advise to load it as a pickle."""
    try:
        yield
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        if not _is_damage(error):
            raise
        raise CheckpointError(
            f"The checkpoint {checkpoint} is damaged: {first_line(error).split('. ')[0]}. Move it away, and give the same command "
            "again: it goes on from the one before."
        ) from error


def _is_damage(error: Exception) -> bool:
    """Tell a file that was cut off from an intact one that cannot be loaded, such as one with a class that torch does not allow."""
    if isinstance(error, UnpicklingError):
        return _NOT_ALLOWED not in str(error)
    return not isinstance(error, RuntimeError) or _CUT_OFF in str(error)


@contextmanager
def _sizes_compared(checkpoint: str) -> Iterator[None]:
    """Name a checkpoint whose weights have other sizes than the model's; torch lists all of them."""
    try:
        yield
    except RuntimeError as error:
        wrong = _OTHER_SIZE.findall(str(error))
        if not wrong:
            raise
        name, saved, expected = wrong[0]
        raise CheckpointError(
            f"The checkpoint {checkpoint} is another model's: {len(wrong)} of its weights have other sizes, the first is {name}, "
            f"{saved} where the model has {expected}. Give another `output_dir`, or train the model that it was saved of."
        ) from None


def _shortened(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{len(names)} weights" + (f" ({shown}{', ...' if len(names) > 3 else ''})" if names else "")
