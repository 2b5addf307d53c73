"""The latent projector: from a hidden state of the language model to a latent. It ships with the checkpoint."""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_storm import StormConfig


class UnitGainLinear(nn.Linear):
    """A linear layer that starts by keeping the scale of what it gets, so that latents have unit scale from the first step."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give the layer unit gain and no bias."""
        init.normal_(self.weight, mean=0.0, std=self.in_features**-0.5)
        init.zeros_(self.bias)


class LatentProjector(nn.Module):
    """Maps a hidden state of the language model to a latent of the same width.

    There are no 0-dim parameters: ZeRO-3 cannot partition them.
    """

    def __init__(self, config: StormConfig) -> None:
        super().__init__()
        size = config.hidden_size
        layers: dict[str, list[nn.Module]] = {
            "linear": [nn.LayerNorm(size), UnitGainLinear(size, size)],
            "mlp": [
                nn.LayerNorm(size),
                UnitGainLinear(size, 2 * size),
                nn.GELU(),
                UnitGainLinear(2 * size, size),
            ],
            "identity": [],
        }
        self.layers = nn.Sequential(*layers[config.latent_projector])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project hidden states of shape `(..., hidden_size)` to latents of the same shape."""
        return self.layers(hidden_states)
