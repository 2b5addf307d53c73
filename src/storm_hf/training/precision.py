"""Numerical precision: float32 masters, their casts, the search for non-finite numbers, and the error of a cheaper gradient."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from storm_hf.errors import ConfigurationError, StageError
from storm_hf.evaluation.latent_words import latent_body
from storm_hf.model.rollout_storm import RolloutGradient


HALF = (torch.bfloat16, torch.float16)

logger = logging.getLogger(__name__)


def train_whole_in_float32(model: PreTrainedModel, args: TrainingArguments) -> None:
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


@contextmanager
def frozen_weights_cast(
    model: PreTrainedModel | PeftModel, dtype: torch.dtype, memory: dict[torch.Tensor, torch.Tensor] | None = None
) -> Iterator[None]:
    """Hold the frozen matrices of a language model in the precision of autocast while it is open: for one training step.

    Autocast casts a weight that is trained once for all passes of a forward pass, but a frozen one whenever it is read: in a
    rollout K + 1 times, and the backward pass needs every cast. Only weights of linear layers are held so, which autocast would
    cast to the same numbers. Norms and embeddings stay what they are, and so does the model once the step is over.

    Args:
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model, its weights in one piece.
        dtype (`torch.dtype`):
            Precision of autocast.
        memory (`dict`, *optional*):
            Casts of the step before, which those of this one overwrite: to allocate them anew takes as long again.
    """
    memory = {} if memory is None else memory
    layers = [layer for layer in model.get_decoder().modules() if type(layer) is nn.Linear]
    weights = [layer.weight for layer in layers if not layer.weight.requires_grad and layer.weight.dtype not in HALF]
    masters = [weight.data for weight in weights]
    for weight, master in zip(weights, masters, strict=True):
        if weight not in memory:
            memory[weight] = torch.empty_like(master, dtype=dtype)
        weight.data = memory[weight].copy_(master)
    try:
        yield
    finally:
        for weight, master in zip(weights, masters, strict=True):
            weight.data = master


def check_loss(loss: torch.Tensor, step: int, batch: Mapping[str, Any], model: nn.Module) -> None:
    """Make sure that a loss is finite, since `Trainer` would log 0 for it and go on. It waits for the device.

    Raises:
        StageError: If it is not; see `explain_loss`.
    """
    if not torch.isfinite(loss).all():
        raise StageError(explain_loss(float(loss.detach()), step, batch, model))


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


def _is_broken(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all())


@dataclass(frozen=True)
class GradientError:
    """The difference between two gradients g (exact) and g'.

    Args:
        relative (`float`):
            |g' - g| / |g|.
        cosine (`float`):
            Between g and g'; 1 where they point the same way.
    """

    relative: float
    cosine: float


def gradient_error(
    model: PreTrainedModel | PeftModel, batch: Mapping[str, Any], gradient: RolloutGradient
) -> GradientError:
    """Compare a cheaper gradient with the exact one.

    Both are taken with respect to the latent projector and the first decoder layer that learn, which the gradient reaches through
    all others: two copies of those are small where two copies of a whole gradient are not. Layers are recomputed in the
    backward pass if the model does so in training. The state of the random numbers is left as it was.

    Args:
        model (`nn.Module`):
            A [`StormForConditionalGeneration`] in training mode, with or without an adapter, its weights in one piece.
        batch (`Mapping`):
            Model inputs with `labels`; one row is enough.
        gradient ([`RolloutGradient`]):
            The cheaper way.

    Returns:
        [`GradientError`]: The difference.
    """
    parameters = _observed(model)
    exact = _flat_gradient(model, batch, parameters, None)
    found = _flat_gradient(model, batch, parameters, gradient)
    return GradientError(
        relative=float((found - exact).norm() / exact.norm()),
        cosine=float(torch.cosine_similarity(found, exact, dim=0)),
    )


def _observed(model: PreTrainedModel | PeftModel) -> list[nn.Parameter]:
    layer = model.get_decoder().layers[0]
    observed = [
        parameter for module in (latent_body(model).latent_projector, layer) for parameter in module.parameters()
    ]
    return [parameter for parameter in observed if parameter.requires_grad]


def _flat_gradient(
    model: PreTrainedModel | PeftModel,
    batch: Mapping[str, Any],
    parameters: list[nn.Parameter],
    gradient: RolloutGradient | None,
) -> torch.Tensor:
    devices = sorted({parameter.device for parameter in parameters if parameter.device.type != "cpu"}, key=str)
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(0)  # the same dropout in both
        loss = model(**batch, rollout_gradient=gradient).loss
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    full = [torch.zeros_like(weight) if part is None else part for weight, part in zip(parameters, parts, strict=True)]
    return torch.cat([part.flatten().float() for part in full])
