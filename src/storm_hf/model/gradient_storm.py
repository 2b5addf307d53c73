"""Gradient of Stage II through the rollout: exact, or a cheaper part of it."""

from dataclasses import dataclass

from .errors_storm import ConfigurationError


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
