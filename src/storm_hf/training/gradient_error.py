"""Error of a cheaper gradient through the rollout against the exact one, measured on a row of the user's own data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from storm_hf.model.gradient_storm import RolloutGradient


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


def gradient_error(model: nn.Module, batch: Mapping[str, Any], gradient: RolloutGradient) -> GradientError:
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


def _observed(model: Any) -> list[nn.Parameter]:
    projector = next(module.latent_projector for module in model.modules() if hasattr(module, "latent_projector"))
    layer = model.get_decoder().layers[0]
    observed = [parameter for module in (projector, layer) for parameter in module.parameters()]
    return [parameter for parameter in observed if parameter.requires_grad]


def _flat_gradient(
    model: nn.Module, batch: Mapping[str, Any], parameters: list[nn.Parameter], gradient: RolloutGradient | None
) -> torch.Tensor:
    devices = sorted({parameter.device for parameter in parameters if parameter.device.type != "cpu"}, key=str)
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(0)  # the same dropout in both
        loss = model(**batch, rollout_gradient=gradient).loss
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    full = [torch.zeros_like(weight) if part is None else part for weight, part in zip(parameters, parts, strict=True)]
    return torch.cat([part.flatten().float() for part in full])
