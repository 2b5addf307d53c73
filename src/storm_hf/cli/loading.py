"""Load the model that a command was given."""

from pathlib import Path
from typing import TYPE_CHECKING

from storm_hf.errors import CheckpointError


if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from storm_hf.model import StormForConditionalGeneration


DEFAULT_MODEL = Path("runs", "demo", "storm")


def default_model() -> str:
    """The model that `storm demo` trained, for commands that are given none.

    Raises:
        CheckpointError: If there is none.
    """
    if not DEFAULT_MODEL.is_dir():
        raise CheckpointError(
            f"There is no model in {DEFAULT_MODEL}: run `storm demo` to train one, or name one with --model."
        )
    return str(DEFAULT_MODEL)


def load_model(name_or_path: str) -> "tuple[StormForConditionalGeneration, ProcessorMixin]":
    """Load a checkpoint for inference, on the accelerator if there is one, silencing library output.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.

    Raises:
        CheckpointError: If there is no such checkpoint, or it is not whole.
    """
    import torch
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from storm_hf.evaluation.loading import load_checkpoint

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load_checkpoint(name_or_path, torch.accelerator.current_accelerator(check_available=True) or "cpu")
