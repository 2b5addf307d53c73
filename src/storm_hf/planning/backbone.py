"""The backbone that a recipe names: its configuration, its video processor, and a model of it without weights.

The backbones of our own recipes are known without a network; their numbers are those of the published `config.json`.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoVideoProcessor, PreTrainedConfig, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

from storm_hf.errors import BackboneError, CheckpointError
from storm_hf.model import StormConfig, StormForConditionalGeneration


KNOWN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl_3b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_7b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl_8b",
}
_PROCESSOR_OF = {"qwen2_5_vl": Qwen2VLVideoProcessor, "qwen3_vl": Qwen3VLVideoProcessor}


@dataclass(frozen=True)
class Backbone:
    """Properties of a backbone that a plan uses.

    Args:
        name (`str`):
            Source of the backbone.
        config ([`~transformers.PreTrainedConfig`]):
            Of the video-language model, without STORM.
        video_processor ([`~transformers.BaseVideoProcessor`], *optional*):
            Processor that cuts clips into patches; `None` if there is none.
        storm ([`StormConfig`], *optional*):
            Configuration of a checkpoint that is a STORM already.
    """

    name: str
    config: Any
    video_processor: Any = None
    storm: StormConfig | None = None


def is_checkpoint(name: str) -> bool:
    """Return True if `name` is a folder with a configuration."""
    return Path(name, "config.json").is_file()


def load_backbone(name: str) -> Backbone:
    """Read a backbone's configuration: a folder, one of the known, or a name on the Hub.

    Raises:
        BackboneError: If it is no video-language model.
        CheckpointError: If there is no configuration to be read.
    """
    if name in KNOWN and not is_checkpoint(name):
        return _known(name)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected a backbone whose configuration can be read, got {name!r}, which is no folder with a `config.json`, nor "
            "can it be reached on the Hub. Name a folder that has one with --config; without a network, these are known: "
            f"{', '.join(KNOWN)}."
        ) from error
    storm = config if config.model_type == "storm" else None
    config = config if storm is None else storm.vlm_config
    if getattr(config, "vision_config", None) is None:
        raise BackboneError(f"Expected a video-language backbone, got {name!r} of the type `{config.model_type}`.")
    return Backbone(name, config, _video_processor(name), storm)


def _known(name: str) -> Backbone:
    text = files("storm_hf.planning").joinpath("backbones", f"{KNOWN[name]}.json").read_text(encoding="utf-8")
    known = json.loads(text)
    kind = known["config"].pop("model_type")
    config: PreTrainedConfig = AutoConfig.for_model(kind, **known["config"])
    return Backbone(name, config, _PROCESSOR_OF[kind](**known["video_processor"]))


def _video_processor(name: str) -> Any:
    try:
        return AutoVideoProcessor.from_pretrained(name)
    except (OSError, ValueError):  # a folder with a configuration alone
        return None


def without_weights(backbone: Backbone, num_latents: int, latent_projector: str) -> StormForConditionalGeneration:
    """Build a STORM on the `meta` device: every parameter has its shape, and takes no memory."""
    config = StormConfig(
        vlm_config=backbone.config.to_dict(), num_latents=num_latents, latent_projector=latent_projector
    )
    with torch.device("meta"):
        return StormForConditionalGeneration(config)
