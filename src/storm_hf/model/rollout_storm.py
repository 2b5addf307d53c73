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
    num_detached_steps: int = 0,
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
            Number of the first step, for a chunked prompt whose earlier chunks held latents.
        num_detached_steps (`int`, *optional*, defaults to `0`):
            Number of leading steps that run without gradient.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`: The model's own latents, in order, before any
        intervention.
    """
    latents = []
    has_gradient = torch.is_grad_enabled()
    for step in range(first_step, first_step + num_latents):
        with torch.set_grad_enabled(has_gradient and step >= first_step + num_detached_steps):
            latent = project(state)
            latents.append(latent)
            fed = latent if intervene is None else intervene(step, latent)
            state = advance(fed)
    return torch.stack(latents, dim=1)  # (B, K, D)


def jacobi_sweeps(
    project: Callable[[torch.Tensor], torch.Tensor],
    sweep: Callable[[torch.Tensor], torch.Tensor],
    state: torch.Tensor,
    num_latents: int,
    num_sweeps: int,
) -> torch.Tensor:
    """Approximate the rollout by parallel sweeps: every slot at once, from the latents of the sweep before.

    Sweep i makes one more latent exact, so `num_latents - 1` sweeps give what [`bounded_rollout`] gives (Jacobi iteration on
    the recurrence, as in arXiv 2002.03629).

    Args:
        project (`Callable[[torch.Tensor], torch.Tensor]`):
            The latent projector, on states of shape `(batch_size, num_states, hidden_size)`.
        sweep (`Callable[[torch.Tensor], torch.Tensor]`):
            One pass over all slots, from latents to the last hidden states at their positions, both of shape
            `(batch_size, num_latents, hidden_size)`. It leaves the cache of the prompt as it is.
        state (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            Last hidden state at the latent start token.
        num_latents (`int`):
            Number K of latent steps.
        num_sweeps (`int`):
            Number of sweeps.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`: The latents after the last sweep.
    """
    latents = project(state[:, None]).expand(-1, num_latents, -1)  # the first one is exact
    for _ in range(num_sweeps):
        states = torch.cat([state[:, None], sweep(latents)[:, :-1]], dim=1)
        latents = project(states)
    return latents
