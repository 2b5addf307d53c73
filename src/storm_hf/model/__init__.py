"""The model that ships with each checkpoint: its configuration, its rollout and its caches.

The names are loaded on first use, and STORM is registered with the Auto classes then: `storm_hf.errors` shares a file of this
folder and needs no model.
"""

import importlib
from functools import cache
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .configuration_storm import StormConfig
    from .modeling_storm import StormForConditionalGeneration, StormModel
    from .processing_storm import PromptRecord, add_latent_tokens, storm_processor

_MODULE_OF = {
    "PromptRecord": "processing_storm",
    "StormConfig": "configuration_storm",
    "StormForConditionalGeneration": "modeling_storm",
    "StormModel": "modeling_storm",
    "add_latent_tokens": "processing_storm",
    "storm_processor": "processing_storm",
}

__all__ = [
    "PromptRecord",
    "StormConfig",
    "StormForConditionalGeneration",
    "StormModel",
    "add_latent_tokens",
    "storm_processor",
]


@cache
def register() -> None:
    """Make the Auto classes know STORM, and make `save_pretrained` copy its code beside the weights."""
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
    )

    from .configuration_storm import StormConfig
    from .modeling_storm import StormForConditionalGeneration

    StormConfig.register_for_auto_class()
    StormForConditionalGeneration.register_for_auto_class("AutoModel")
    AutoConfig.register("storm", StormConfig, exist_ok=True)
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto_class.register(StormConfig, StormForConditionalGeneration, exist_ok=True)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register()
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
