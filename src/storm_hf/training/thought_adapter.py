"""Training of a thought adapter: the low-rank updates that act from `<|latent_start|>` on, the projector, and nothing else."""

import torch
from peft import PeftConfig
from transformers import TrainingArguments

from storm_hf.errors import ConfigurationError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.model.thought_adapter_storm import adapter_weights, thought_layers
from storm_hf.training.learning_rates import vision_parameters
from storm_hf.training.peft import take_any_precision


def train_thought_adapter(
    model: StormForConditionalGeneration, peft_config: PeftConfig | None, args: TrainingArguments
) -> None:
    """Train the thought adapter of a model and its projector, and without `freeze_vision` the vision tower.

    Args:
        model ([`StormForConditionalGeneration`]):
            With a thought adapter.
        peft_config ([`~peft.PeftConfig`], *optional*):
            An adapter to train beside it. Refused.
        args ([`~transformers.TrainingArguments`]):
            Configuration of the run.

    Raises:
        ConfigurationError: If the run would train something else, or nothing: an adapter of PEFT, answers without latents, or the
            language, which cannot change; or a vision tower in 16 bits.
    """
    refused = {
        "peft_config": peft_config is not None,
        "num_latents: 0": args.num_latents == 0,
        "keep_language": getattr(args, "keep_language", 0) > 0,
        "language_weight": getattr(args, "language_weight", 0) > 0,
    }
    if wrong := [name for name, is_given in refused.items() if is_given]:
        raise ConfigurationError(
            f"A model with a thought adapter trains this adapter and the latent projector, but `{wrong[0]}` was given. Leave it "
            "out, or start from a model without a thought adapter."
        )
    if not args.freeze_vision and model.dtype != torch.float32:
        raise ConfigurationError(
            f"`freeze_vision: false` beside a thought adapter trains a tower whose weights are {model.dtype}, in which small steps are "
            "lost. Load the model with `dtype: float32`."
        )
    plugin = args.deepspeed_plugin
    leave_to_thought_adapter(model, in_float32=plugin is None or plugin.zero_stage != 3)
    if not args.freeze_vision:
        for weight in vision_parameters(model):
            weight.requires_grad_(True)


def leave_to_thought_adapter(model: StormForConditionalGeneration, *, in_float32: bool = True) -> None:
    """Freeze all of a model but its thought adapter, its projector, and a halting head that was not frozen before.

    Args:
        model ([`StormForConditionalGeneration`]):
            With a thought adapter.
        in_float32 (`bool`, *optional*, defaults to `True`):
            Whether to hold what is trained in float32. ZeRO-3 gathers one precision only, and has masters of its own.
    """
    projector, head = model.model.latent_projector, model.model.halting_head
    of_head = [] if head is None else [weight for weight in head.parameters() if weight.requires_grad]
    model.requires_grad_(False)
    layers = thought_layers(model.get_decoder())
    for weight in (
        *projector.parameters(),
        *of_head,
        *(weight for layer in layers for weight in adapter_weights(layer)),
    ):
        weight.data = weight.data.float() if in_float32 else weight.data
        weight.requires_grad_(True)
    if in_float32 and model.dtype != torch.float32:
        take_any_precision(projector, model.dtype)
