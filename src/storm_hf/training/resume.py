"""Resumption: the checkpoint that a run resumes from, its output folder, and Ctrl-C, which ends a run without losing a step."""

import dataclasses
import json
import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import SFTConfig

from storm_hf.atomic import read_json, write_json
from storm_hf.errors import CheckpointError
from storm_hf.pipeline.lock import locked


INTERRUPTED = 130  # 128 + SIGINT, as shells count


def newest_complete_checkpoint(folder: str | Path) -> Path | None:
    """Find the checkpoint to resume from.

    `Trainer` writes `trainer_state.json` last, so a checkpoint was written to its end if and only if that file can be read. A
    process that was killed in the middle leaves a folder without it.

    Args:
        folder (`str` or `Path`):
            A run's output folder.

    Returns:
        `Path` or `None`: The complete `checkpoint-N` with the largest N, if there is one.
    """
    complete = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_complete(path)]
    return max(complete, key=_step, default=None)


def check_checkpoint(folder: str | Path) -> None:
    """Make sure that a folder is a checkpoint of a run that was written to its end, whatever its name.

    Args:
        folder (`str` or `Path`):
            The folder.

    Raises:
        CheckpointError: If it is not there, or has no `trainer_state.json`, as a run's own folder and a saved model have none.
    """
    if not Path(folder, TRAINER_STATE_NAME).is_file():
        raise CheckpointError(
            f"Expected a folder with `{TRAINER_STATE_NAME}`, which a checkpoint has, to resume from, got {folder}. Give a "
            f"`{PREFIX_CHECKPOINT_DIR}-N` in the folder of a run, or `true` for the newest complete one in `output_dir`."
        )


def _remove_half_written(folder: Path) -> None:
    """Remove the checkpoints that were not written to their end, and the unfinished files of a killed run.

    `Trainer` counts them for `save_total_limit`, and where a file system keeps no times of change it takes the one with the
    largest step for the newest, so that it would delete complete ones in their favour.

    Args:
        folder (`Path`):
            A run's output folder, which no run writes to.
    """
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if path.is_dir() and _step(path) >= 0 and not (path / TRAINER_STATE_NAME).exists():
            shutil.rmtree(path)
    for path in folder.glob(".*.unfinished"):
        if path.is_file():
            path.unlink()


def _is_complete(checkpoint: Path) -> bool:
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except (OSError, ValueError):
        return False
    return state.get("global_step") == _step(checkpoint)


def _step(checkpoint: Path) -> int:
    suffix = checkpoint.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(suffix) if suffix.isdigit() else -1


class StopOnInterrupt(TrainerCallback):
    """Ends training after the running step when Ctrl-C is pressed, with a checkpoint. A second Ctrl-C ends it at once.

    Where several processes train together, all of them end after the same step, whichever of them it was pressed for.
    """

    def __init__(self) -> None:
        self.is_interrupted = False
        self._is_pressed = False
        self._previous: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start listening."""
        if threading.current_thread() is threading.main_thread():  # the only one that signals reach
            self._previous = signal.signal(signal.SIGINT, self._note)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Save and stop if Ctrl-C was pressed."""
        self._agree(args)
        if self.is_interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Stop listening."""
        self.release()
        self._agree(args)

    def release(self) -> None:
        """Stop listening, also where training ended in an error."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_pressed = True
        self.release()

    def _agree(self, args: TrainingArguments) -> None:
        """Let every process know what one of them noted: a checkpoint needs them all."""
        if args.world_size == 1:
            self.is_interrupted = self._is_pressed
            return
        noted = torch.tensor(int(self._is_pressed), device=args.device)
        torch.distributed.all_reduce(noted, op=torch.distributed.ReduceOp.MAX)
        self.is_interrupted = bool(noted)


class ExitOnInterrupt(StopOnInterrupt):
    """The same for a script: it ends there, with the code of an interrupted program, and saves no unfinished model."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Stop listening, and end the program if Ctrl-C was pressed."""
        super().on_train_end(args, state, control, **kwargs)
        if self.is_interrupted:
            raise SystemExit(INTERRUPTED)


FILE_NAME = "run_settings.json"
_LOCK = ".locks/training"
_SETTINGS = (  # of transformers and TRL, those that change what is learned; of ours, all do
    *(
        "seed",
        "data_seed",
        "max_steps",
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
    ),
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "max_grad_norm"),
    *("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "label_smoothing_factor", "loss_type"),
    *("neftune_noise_alpha", "bf16", "fp16", "train_sampling_strategy"),
)
_NOT_LEARNED = {
    *("overwrite_output_dir", "peak_flops_per_second", "dataloader_num_workers"),
    *(
        "log_completions",
        "log_completions_hub_repo",
        "log_multimodal",
        "log_unique_prompts",
        "num_completions_to_print",
    ),
}

logger = logging.getLogger(__name__)


@contextmanager
def claimed_run(args: TrainingArguments, is_resumed: bool, **trained: str | None) -> Iterator[None]:
    """Hold the output folder of a run while it trains; on the first process alone.

    Args:
        args ([`~transformers.TrainingArguments`]):
            Settings of the run.
        is_resumed (`bool`):
            Whether it goes on from a checkpoint. What differs from the settings, the model or the rows that it began with is logged
            as a warning.
        trained (`str`, *optional*):
            Name of the model and of the rows, where they are known.

    Raises:
        CheckpointError: If another training writes to the folder, or the run would begin anew over complete checkpoints.
    """
    if args.process_index != 0:
        yield
        return
    folder = Path(args.output_dir)
    with locked(folder / _LOCK, "training", wait=False) as is_held:
        if not is_held:
            raise CheckpointError(
                f"Another training writes its checkpoints to {folder}. Wait for it, or choose another `output_dir`."
            )
        settings = learned_settings(args) | {name: place for name, place in trained.items() if place}
        _check_start(args, folder, is_resumed, settings)
        if (folder / FILE_NAME).exists():  # an earlier run of this package has written here
            _remove_half_written(folder)
        write_json(folder / FILE_NAME, settings)
        yield


def _check_start(args: TrainingArguments, folder: Path, is_resumed: bool, settings: dict[str, Any]) -> None:
    if is_resumed:
        _compare_settings(folder, args, settings)
        return
    newest = newest_complete_checkpoint(folder)
    if newest is not None and not args.overwrite_output_dir:
        raise CheckpointError(
            f"{folder} holds {newest.name} of an earlier run, which a run from step 1 would delete. Go on from it with "
            "`resume_from_checkpoint=True`, choose another `output_dir`, or set `overwrite_output_dir=True`."
        )


def learned_settings(args: TrainingArguments) -> dict[str, Any]:
    """Settings that change what a run learns, as JSON knows them."""
    known = {field.name for field in dataclasses.fields(SFTConfig)}
    own = {field.name for field in dataclasses.fields(args)} - known - _NOT_LEARNED
    settings = args.to_dict()
    return {name: settings[name] for name in sorted({*_SETTINGS, *own}) if name in settings}


def _compare_settings(folder: Path, args: TrainingArguments, settings: dict[str, Any]) -> None:
    path = folder / FILE_NAME
    before = read_json(path) if path.exists() else settings
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    # A run of before a setting had its default. Of places that only one of the two knows, nothing can be said.
    pairs = {name: (before.get(name, defaults.get(name)), settings.get(name)) for name in {*before, *settings}}
    names = sorted(
        name for name, (was, now) in pairs.items() if was != now and (name in defaults or None not in (was, now))
    )
    if names:
        changes = ", ".join(f"{name} was {pairs[name][0]} and is now {pairs[name][1]}" for name in names)
        logger.warning(
            "The run in %s goes on with other settings: %s. It does not end as one that had them from the start.",
            folder,
            changes,
        )
