"""The bounded latent rollout: from a hidden state to a latent and back, K times, and ways to make its gradient cheaper.

Training, generation and diagnostics all call this one loop, from `latent_forward_storm`. It ships with the checkpoint.

Axes: B batch, K latent steps, D hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .errors_storm import ConfigurationError, LatentError


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

    Raises:
        LatentError: If an intervention returns another shape than it was given.
    """
    latents = []
    has_gradient = torch.is_grad_enabled()
    for step in range(first_step, first_step + num_latents):
        with torch.set_grad_enabled(has_gradient and step >= first_step + num_detached_steps):
            latent = project(state)
            latents.append(latent)
            state = advance(latent if intervene is None else replaced(intervene, step, latent))
    return torch.stack(latents, dim=1)  # (B, K, D)


def replaced(intervene: LatentIntervention, step: int, latent: torch.Tensor) -> torch.Tensor:
    """Ask an intervention what is fed instead of a latent (batch_size, hidden_size), which it gets a copy of.

    Raises:
        LatentError: If that is of another shape.
    """
    fed = intervene(step, latent.clone())
    if not isinstance(fed, torch.Tensor) or fed.shape != latent.shape:
        got = tuple(fed.shape) if isinstance(fed, torch.Tensor) else type(fed).__name__
        raise LatentError(
            f"Expected `latent_intervention` to return a tensor of shape {tuple(latent.shape)}, a latent for each row, got {got} in "
            f"step {step}. Expand it to the shape of what it is given."
        )
    return fed


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


@dataclass(frozen=True)
class RolloutGradient:
    """Ways to make the gradient through the rollout cheaper. The default is exact: through every latent step and the prompt.

    Args:
        detach_prompt (`bool`, *optional*, defaults to `False`):
            Run the prompt without gradient. The answer then teaches the latent steps and itself, not how the prompt is
            read. Saves the prompt's activations, by far the most of a long video.
        truncate_steps (`int`, *optional*):
            Backpropagate through the last `truncate_steps` latents only (truncated BPTT); what came before
            them, the prompt included, counts as given. Memory of that many steps instead of K and the prompt.
        jacobi_sweeps (`int`, *optional*):
            Find the latents by this number of parallel sweeps over all K slots instead of K steps one after the other, each from
            the latents of the sweep before. K - 1 sweeps are the rollout itself, fewer are an approximation of it,
            already in the forward pass. The gradient goes through all sweeps.

    Raises:
        ConfigurationError: If a number is out of its range, or two of them exclude each other.
    """

    detach_prompt: bool = False
    truncate_steps: int | None = None
    jacobi_sweeps: int | None = None

    def __post_init__(self) -> None:
        for name in ("truncate_steps", "jacobi_sweeps"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ConfigurationError(f"`{name}` must be 1 or more, or be left out, got {number}.")
        if self.truncate_steps is not None and self.jacobi_sweeps is not None:
            raise ConfigurationError(
                "`truncate_steps` cuts steps that come one after the other, and `jacobi_sweeps` takes them all at once: "
                f"give one of them, got {self.truncate_steps} and {self.jacobi_sweeps}."
            )

    def num_detached_steps(self, num_latents: int) -> int:
        """Number of the first latent steps that the gradient does not reach."""
        return 0 if self.truncate_steps is None else max(num_latents - self.truncate_steps, 0)

    def reaches_prompt(self, num_latents: int) -> bool:
        """True if the prompt gets a gradient."""
        return not self.detach_prompt and self.num_detached_steps(num_latents) == 0

    def is_exact(self, num_latents: int) -> bool:
        """Check that latents and gradient are those of the full rollout of `num_latents` steps."""
        enough_sweeps = self.jacobi_sweeps is None or self.jacobi_sweeps >= num_latents - 1
        return self.reaches_prompt(num_latents) and enough_sweeps
