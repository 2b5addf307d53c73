"""Training of a thought adapter: the low-rank updates that act from `<|latent_start|>` on, the projector, and nothing else."""

import torch
from peft import PeftConfig

from storm_hf.errors import ConfigurationError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.model.thought_adapter_storm import adapter_weights, thought_layers
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.peft import take_any_precision


def train_thought_adapter(
    model: StormForConditionalGeneration, peft_config: PeftConfig | None, args: StormTrainingConfig
) -> None:
    """Freeze all of a model but its thought adapter and its projector, and hold these two in float32.

    Args:
        model ([`StormForConditionalGeneration`]):
            With a thought adapter.
        peft_config ([`~peft.PeftConfig`], *optional*):
            An adapter to train beside it. Refused.
        args ([`StormTrainingConfig`]):
            Configuration of the run.

    Raises:
        ConfigurationError: If the run would train something else, or nothing: an adapter of PEFT, the vision tower, answers without
            latents, or the language, which cannot change.
    """
    refused = {
        "peft_config": peft_config is not None,
        "freeze_vision: false": not args.freeze_vision,
        "freeze_language_model: true": args.freeze_language_model,
        "num_latents: 0": args.num_latents == 0,
        "keep_language": args.keep_language > 0,
        "language_weight": args.language_weight > 0,
    }
    if wrong := [name for name, is_given in refused.items() if is_given]:
        raise ConfigurationError(
            f"A model with a thought adapter trains this adapter and the latent projector alone, but `{wrong[0]}` was given. Leave it "
            "out, or start from a model without a thought adapter."
        )
    model.requires_grad_(False)
    for layer in thought_layers(model.get_decoder()):
        for weight in adapter_weights(layer):
            _train_in_float32(weight)
    projector = model.model.latent_projector
    for weight in projector.parameters():
        _train_in_float32(weight)
    if model.dtype != torch.float32:
        take_any_precision(projector, model.dtype)


def _train_in_float32(weight: torch.nn.Parameter) -> None:
    weight.data = weight.data.float()
    weight.requires_grad_(True)
