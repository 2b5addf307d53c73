"""Loading of complete checkpoints for inference, STORM or plain; what is incomplete is an error of one sentence."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from storm_hf.checkpoints.adapter import find_adapter, load_adapted
from storm_hf.errors import CheckpointError, StormError, first_line
from storm_hf.hub.card_metadata import is_hub_name
from storm_hf.model import StormForConditionalGeneration
from storm_hf.model.processing_storm import find_differences, find_misfit


logger = logging.getLogger(__name__)

# What transformers raises about a broken folder: a missing or unreadable file, a bad value, a tensor of another shape.
_LOADING_ERRORS = (OSError, ValueError, TypeError, RuntimeError, SafetensorError)


def load_checkpoint(
    name_or_path: str, device: torch.device | str | None = "cpu", *, revision: str | None = None, **kwargs: object
) -> tuple[StormForConditionalGeneration, ProcessorMixin]:
    """Load a model for inference, and its processor. Code in the checkpoint is not run: this package has its own.

    Args:
        name_or_path (`str`):
            A folder that `save_pretrained` of model and processor wrote, or one in which a trainer saved an adapter, or a
            name on the Hub. An adapter is loaded with the checkpoint that it belongs to.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Device of the model; None leaves it where `device_map` puts it.
        revision (`str`, *optional*):
            Branch, tag or commit of a name on the Hub.
        kwargs:
            Passed to `from_pretrained`, such as `dtype` (by default that of the checkpoint), `device_map` or
            `attn_implementation`.

    Raises:
        CheckpointError: If there is no such checkpoint, it is of another model, a part of it is missing or damaged, or its
            processor does not write the prompts of its model.
    """
    check_place(name_or_path)
    place = place_of(revision)
    adapter = find_adapter(name_or_path, **place)
    config = _load_config(name_or_path, place) if adapter is None else None
    try:
        processor = AutoProcessor.from_pretrained(name_or_path, trust_remote_code=False, **place)
    except _LOADING_ERRORS as error:
        raise CheckpointError(
            f"The processor of {name_or_path} cannot be loaded: {first_line(error)}. Save it beside the model with "
            "`processor.save_pretrained`."
        ) from error
    try:
        model = (
            _load_whole(name_or_path, config, **{"dtype": "auto", **kwargs, **place})
            if adapter is None
            else load_adapted(adapter, processor, **{"dtype": "auto", **kwargs})
        )
    except StormError:
        raise
    except _LOADING_ERRORS as error:
        raise CheckpointError(f"The weights of {name_or_path} cannot be loaded: {first_line(error)}.") from error
    _compare(name_or_path, processor, model.config)
    return (model if device is None else model.to(device)).eval(), processor


def _compare(name_or_path: str, processor: ProcessorMixin, config: PreTrainedConfig) -> None:
    """Refuse a processor that cannot write the model's prompts, and warn of one that would ask otherwise than in training."""
    if misfit := find_misfit(processor, config):
        raise CheckpointError(f"The processor in {name_or_path} does not fit its model. {misfit}")
    for difference in find_differences(processor, config):
        logger.warning(difference)


def _load_whole(name_or_path: str, config: PreTrainedConfig, **kwargs: object) -> StormForConditionalGeneration:
    model, report = AutoModel.from_pretrained(
        name_or_path, config=config, trust_remote_code=False, output_loading_info=True, **kwargs
    )
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]}):
        raise CheckpointError(
            f"The weights of {name_or_path} are not those of its config.json: {len(wrong)} are missing or superfluous, "
            f"the first is {wrong[0]}. Save the model again with `save_pretrained`."
        )
    return model


def check_place(name_or_path: str) -> None:
    """Tell a folder that is not there from a name on the Hub: one slash at most, and no folder here before it.

    Raises:
        CheckpointError: If it can be neither.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            nested = [str(config.parent) for config in sorted(folder.glob("*/config.json"))]
            hint = f" There is one in {' and in '.join(nested)}." if nested else ""
            raise CheckpointError(
                f"{folder} holds no model: expected a config.json in it, as `save_pretrained` writes.{hint}"
            )
    elif folder.exists():
        raise CheckpointError(f"{folder} is a file; expected the folder of a model.")
    elif not is_hub_name(name_or_path) or (folder.parent.is_dir() and folder.parent != Path()):
        raise CheckpointError(f"There is no model folder {folder}. `storm demo` trains one.")


def place_of(revision: str | None) -> dict[str, str]:
    """The revision as `from_pretrained` takes it, which of a folder is none."""
    return {} if revision is None else {"revision": revision}


def _load_config(name_or_path: str, place: Mapping[str, str]) -> PreTrainedConfig:
    config = read_config(name_or_path, **place)
    if config.model_type != "storm":
        raise CheckpointError(
            f"{name_or_path} is a {config.model_type} model, not a STORM. Make one of it with "
            "`StormForConditionalGeneration.from_backbone`, and train it."
        )
    return config


def read_config(name_or_path: str, *, revision: str | None = None) -> PreTrainedConfig:
    """Read the configuration of any model, in a folder or on the Hub.

    Args:
        name_or_path (`str`):
            Folder of the model, or its name on the Hub.
        revision (`str`, *optional*):
            Branch, tag or commit of a name on the Hub.

    Raises:
        CheckpointError: If there is no such model, or its configuration is damaged.
    """
    check_place(name_or_path)
    try:
        return AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **place_of(revision))
    except _LOADING_ERRORS as error:
        if Path(name_or_path).is_dir():
            raise CheckpointError(f"The config.json of {name_or_path} cannot be read: {first_line(error)}.") from error
        raise CheckpointError(
            f"There is no model folder {name_or_path}, and no model of that name could be had from the Hub. "
            "`storm demo` trains one."
        ) from error


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
