"""The bounded latent rollout: K latents, then the answer.

Training, generation and diagnostics all call this one loop. It ships with the checkpoint.

Axes: B batch, K latent steps, D hidden size.
"""

from collections.abc import Callable

import torch


LatentIntervention = Callable[[int, torch.Tensor], torch.Tensor]


def bounded_rollout(
    project: Callable[[torch.Tensor], torch.Tensor],
    advance: Callable[[torch.Tensor], torch.Tensor],
    state: torch.Tensor,
    num_latents: int,
    intervene: LatentIntervention | None = None,
    first_step: int = 0,
) -> torch.Tensor:
    """Turn the last hidden state into the next latent and feed it back, exactly `num_latents` times.

    Args:
        project (`Callable[[torch.Tensor], torch.Tensor]`):
            The latent projector: from a hidden state to a latent, both of shape `(batch_size, hidden_size)`.
        advance (`Callable[[torch.Tensor], torch.Tensor]`):
            One decoder step: from a latent to the last hidden state at its position. It owns the key-value cache and
            scales the latent to an input embedding.
        state (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            Last hidden state at the latent start token.
        num_latents (`int`):
            Length K of the rollout. The rollout never stops early.
        intervene (`Callable[[int, torch.Tensor], torch.Tensor]`, *optional*):
            Replaces the latent of a step before it is fed back. Diagnostics pass one to test causal use, scheduled
            forcing passes one to mix in targets.
        first_step (`int`, *optional*, defaults to `0`):
            Number of the first step, when a prompt comes in pieces and earlier ones held latents already.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`: The model's own latents, in order, before any
        intervention.
    """
    latents = []
    for step in range(first_step, first_step + num_latents):
        latent = project(state)
        latents.append(latent)
        fed = latent if intervene is None else intervene(step, latent)
        state = advance(fed)
    return torch.stack(latents, dim=1)  # (B, K, D)
