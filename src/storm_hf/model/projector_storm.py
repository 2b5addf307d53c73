"""The latent projector: from the last hidden state to the next latent.

A latent lives in the unit space of the target trajectories (root mean square one). It is fed to the language model after
multiplication with `StormConfig.latent_scale`.
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_storm import StormConfig


class LatentProjector(nn.Module):
    """Maps a hidden state of the language model to a latent of the same width.

    The last layer starts with unit gain, so that latents have unit scale from the first step. There are no 0-dim
    parameters: ZeRO-3 cannot partition them.
    """

    def __init__(self, config: StormConfig) -> None:
        super().__init__()
        size = config.hidden_size
        layers: dict[str, list[nn.Module]] = {
            "linear": [nn.LayerNorm(size), nn.Linear(size, size)],
            "mlp": [nn.LayerNorm(size), nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size)],
            "identity": [],
        }
        self.layers = nn.Sequential(*layers[config.latent_projector])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project hidden states of shape `(..., hidden_size)` to latents of the same shape."""
        return self.layers(hidden_states)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every linear layer unit gain and no bias."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                init.normal_(layer.weight, mean=0.0, std=layer.in_features**-0.5)
                init.zeros_(layer.bias)
