"""Put something else in the place of a model's latents, to see whether the answer depends on them.

Axes: B batch, K latent steps, D hidden size.
"""

from typing import Literal

import torch

from storm_hf.model.rollout_storm import LatentIntervention


Replacement = Literal["zero", "noise", "mean"]


def replace_latents(kind: Replacement, own: torch.Tensor, seed: int = 0) -> LatentIntervention:
    """Make the intervention that feeds something without content instead of each latent.

    Args:
        kind (`str`):
            `zero`: zeros. `noise`: Gaussian vectors with the root mean square of the latent they replace. `mean`: the
            mean of the row's own latents over its steps, so that all steps are fed the same.
        own (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            The latents of the rollout without an intervention.
        seed (`int`, *optional*, defaults to `0`):
            Draws the noise.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device is fed the same noise
    mean = own.mean(dim=1)  # (B, D)

    def intervene(step: int, latent: torch.Tensor) -> torch.Tensor:
        if kind == "zero":
            return torch.zeros_like(latent)
        if kind == "mean":
            return mean.to(latent)
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        return noise * latent.pow(2).mean(dim=-1, keepdim=True).sqrt()

    return intervene
