"""Float32 masters of trained weights, and the search for numbers that are not finite."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from storm_hf.errors import ConfigurationError


HALF = (torch.bfloat16, torch.float16)

logger = logging.getLogger(__name__)


def train_whole_in_float32(model: Any, args: Any) -> None:
    """Cast a model to float32 if weights in 16 bits are to be trained.

    A step of 1e-6 is far below half of the last digit of a weight in bfloat16, so that nothing would move. Activations keep
    16 bits where `args.bf16` or `args.fp16` asks for autocast.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model; its optimizer is made later, or holds the same parameters.
        args ([`~transformers.TrainingArguments`]):
            Says whether DeepSpeed, which holds masters of its own, trains.

    Raises:
        ConfigurationError: If DeepSpeed trains without mixed precision, and so without masters.
    """
    trained = {weight.dtype for weight in model.parameters() if weight.requires_grad and weight.dtype in HALF}
    if not trained or getattr(model, "quantization_method", None) is not None:  # `Trainer` refuses to train the latter
        return
    (dtype, *_) = (str(one).removeprefix("torch.") for one in trained)
    if args.deepspeed_plugin is not None:
        if not (args.bf16 or args.fp16):
            raise ConfigurationError(
                f"The weights to train are {dtype}, in which the steps of training are lost, and DeepSpeed holds float32 "
                "masters in mixed precision only. Set `bf16: true`, or load the model with `dtype=torch.float32`."
            )
        return
    logger.warning("The weights to train are %s and are cast to float32, in which small steps are not lost.", dtype)
    model.float()


def explain_loss(loss: float, step: int, batch: Mapping[str, Any], model: nn.Module) -> str:
    """Describe a loss that is not finite: its step, and the input or the weight that is not finite either.

    Args:
        loss (`float`):
            The loss.
        step (`int`):
            Number of the step, from 1.
        batch (`Mapping`):
            Inputs of the model.
        model (`nn.Module`):
            The model.
    """
    inputs = [f"`{name}` of the batch" for name, value in batch.items() if _is_broken(value)]
    weights = [f"the weight `{name}`" for name, weight in model.named_parameters() if _is_broken(weight)]
    if inputs:
        cure = f"{inputs[0]} holds numbers that are not finite either. Encode that column again in float32."
    elif weights:
        cure = f"{weights[0]} is not finite either. Go back to an earlier checkpoint, with a lower learning rate."
    else:
        cure = "Inputs and weights are finite. Lower the learning rate, or use `bf16` instead of `fp16`."
    return f"Expected a finite loss, got {loss} in step {step}: {cure}"


def _is_broken(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all())
