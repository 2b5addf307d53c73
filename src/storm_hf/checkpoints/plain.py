"""Plain checkpoints, without latents: the models that a STORM was made of, or is compared with."""

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from storm_hf.checkpoints.adapter import find_adapter
from storm_hf.checkpoints.loading import place_of
from storm_hf.errors import CheckpointError, first_line


def is_storm(name_or_path: str, revision: str | None = None) -> bool:
    """Tell a STORM, or an adapter that makes one, from a plain checkpoint; what cannot be read is left to the loading."""
    try:
        if find_adapter(name_or_path, **place_of(revision)) is not None:
            return True
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **place_of(revision))
        return config.model_type == "storm"
    except (OSError, ValueError):
        return True


def load_plain(
    name_or_path: str, device: torch.device | str | None = "cpu", *, revision: str | None = None, **kwargs: object
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a plain checkpoint for inference, and its processor. Code in the checkpoint is not run.

    Args:
        name_or_path (`str`):
            Folder or Hub name of a checkpoint of `AutoModelForImageTextToText`.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Device of the model; None leaves it where `device_map` puts it.
        revision (`str`, *optional*):
            Branch, tag or commit of a name on the Hub.
        kwargs:
            Passed to `from_pretrained`, such as `dtype`.

    Raises:
        CheckpointError: If there is no such checkpoint, or it cannot be loaded.
    """
    try:
        place = {"trust_remote_code": False, **place_of(revision)}
        processor = AutoProcessor.from_pretrained(name_or_path, **place)
        model = AutoModelForImageTextToText.from_pretrained(name_or_path, **place, **kwargs)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{name_or_path} cannot be loaded: {first_line(error)}.") from error
    return (model if device is None else model.to(device)).eval(), processor
