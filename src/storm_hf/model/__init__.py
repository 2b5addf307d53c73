"""The model that ships with each checkpoint: its configuration, its rollout and its caches."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)

from .configuration_storm import StormConfig
from .modeling_storm import StormForConditionalGeneration, StormModel
from .processing_storm import add_latent_tokens, storm_processor
from .prompt_storm import PromptRecord


def register() -> None:
    """Make the Auto classes know STORM, and make `save_pretrained` copy its code beside the weights."""
    StormConfig.register_for_auto_class()
    StormForConditionalGeneration.register_for_auto_class("AutoModel")
    AutoConfig.register("storm", StormConfig, exist_ok=True)
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto_class.register(StormConfig, StormForConditionalGeneration, exist_ok=True)


register()

__all__ = [
    "PromptRecord",
    "StormConfig",
    "StormForConditionalGeneration",
    "StormModel",
    "add_latent_tokens",
    "storm_processor",
]
