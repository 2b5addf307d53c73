"""The output folder of a run: one training at a time, begun anew only when asked, resumed with the settings that it had."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trl import SFTConfig

from storm_hf.errors import CheckpointError
from storm_hf.pipeline.lock import locked
from storm_hf.training.checkpoints import newest_complete_checkpoint, remove_half_written
from storm_hf.writing import read_json, write_json


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
_NOT_LEARNED = {"overwrite_output_dir", "peak_flops_per_second", "dataloader_num_workers"}

logger = logging.getLogger(__name__)


@contextmanager
def claimed_run(args: Any, is_resumed: bool) -> Iterator[None]:
    """Hold the output folder of a run while it trains; on the first process alone.

    Args:
        args ([`StormTrainingConfig`]):
            Settings of the run.
        is_resumed (`bool`):
            Whether it goes on from a checkpoint. Settings that differ from those that it began with are logged as a warning.

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
        _check_start(args, folder, is_resumed)
        if (folder / FILE_NAME).exists():  # an earlier run of this package has written here
            remove_half_written(folder)
        write_json(folder / FILE_NAME, learned_settings(args))
        yield


def _check_start(args: Any, folder: Path, is_resumed: bool) -> None:
    if is_resumed:
        _compare_settings(folder, learned_settings(args))
        return
    newest = newest_complete_checkpoint(folder)
    if newest is not None and not args.overwrite_output_dir:
        raise CheckpointError(
            f"{folder} holds {newest.name} of an earlier run, which a run from step 1 would delete. Go on from it with "
            "`resume_from_checkpoint=True`, choose another `output_dir`, or set `overwrite_output_dir=True`."
        )


def learned_settings(args: Any) -> dict[str, Any]:
    """Settings that change what a run learns, as JSON knows them."""
    known = {field.name for field in dataclasses.fields(SFTConfig)}
    own = {field.name for field in dataclasses.fields(args)} - known - _NOT_LEARNED
    settings = args.to_dict()
    return {name: settings[name] for name in sorted({*_SETTINGS, *own}) if name in settings}


def _compare_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / FILE_NAME
    before = read_json(path) if path.exists() else settings
    names = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    if names:
        changes = ", ".join(f"{name} was {before.get(name)} and is now {settings.get(name)}" for name in names)
        logger.warning(
            "The run in %s goes on with other settings: %s. It does not end as one that had them from the start.",
            folder,
            changes,
        )
