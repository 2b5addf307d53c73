"""The checkpoint that a run resumes from, and Ctrl-C, which ends a run without losing a step."""

import json
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


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


def remove_half_written(folder: Path) -> None:
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
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start listening."""
        if threading.current_thread() is threading.main_thread():  # the only one that signals reach
            self._previous = signal.signal(signal.SIGINT, self._note)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop if Ctrl-C was pressed."""
        self._agree(args)
        if self.is_interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
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
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop listening, and end the program if Ctrl-C was pressed."""
        super().on_train_end(args, state, control, **kwargs)
        if self.is_interrupted:
            raise SystemExit(INTERRUPTED)
