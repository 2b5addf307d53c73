"""Exploration in latent space: Gaussian noise around the latents, in the subspace that Stage I has whitened.

A policy over latents is N(mu, std^2 I) in r coordinates: mu is what the model computes, and the coordinates are those along an
orthonormal basis. So noise makes latents that differ as those of two clips do.

Axes: B batch, K latent steps, D hidden size, R rank of the subspace.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch

from storm_hf.errors import LatentError
from storm_hf.target_trajectory.trajectory import TargetTrajectory


@dataclass(frozen=True, eq=False)
class LatentSubspace:
    """Directions of the latent space in which noise is drawn.

    Args:
        hidden_size (`int`):
            Size of a latent.
        basis (`torch.Tensor` of shape `(rank, hidden_size)`, *optional*):
            Orthonormal rows. By default the whole space.

    Raises:
        LatentError: If the basis is of another size.
    """

    hidden_size: int
    basis: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.basis is not None and self.basis.shape[-1] != self.hidden_size:
            raise LatentError(
                f"Expected a subspace of latents of size {self.hidden_size}, got one of size {self.basis.shape[-1]}. Take the "
                "`whitening.safetensors` of the model's own Stage I."
            )

    @classmethod
    def of_targets(cls, targets: TargetTrajectory, hidden_size: int) -> "LatentSubspace":
        """Take the directions in which the targets of Stage I vary. Targets that were not whitened vary in all."""
        if targets.statistics is None:
            return cls(hidden_size)
        _, _, directions = torch.linalg.svd(targets.statistics.projection.double(), full_matrices=False)
        return cls(hidden_size, directions[: targets.statistics.rank].float())

    @property
    def rank(self) -> int:
        """Number R of directions."""
        return self.hidden_size if self.basis is None else len(self.basis)

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """Project latents of shape `(..., hidden_size)` to coordinates of shape `(..., rank)`, in float32."""
        return latents.float() if self.basis is None else latents.float() @ self.basis.to(latents.device).T

    def draw(self, std: torch.Tensor) -> torch.Tensor:
        """Draw noise of shape `(..., hidden_size)` with a deviation of `std`, of shape `(...)`, along each direction."""
        noise = std[..., None] * torch.randn(*std.shape, self.rank, device=std.device)
        return noise if self.basis is None else noise @ self.basis.to(std.device)


@dataclass(frozen=True, eq=False)
class GaussianLatents:
    """Gaussian policy over latents.

    Args:
        subspace ([`LatentSubspace`]):
            Directions of the noise.
        noise (`float`):
            Root mean square of the noise, as a share s of that of the latent it is added to.
    """

    subspace: LatentSubspace
    noise: float

    def std(self, latents: torch.Tensor) -> torch.Tensor:
        """Deviation along each direction, of shape `(...)`, around latents of shape `(..., hidden_size)`. No gradient."""
        root_mean_square = latents.detach().float().square().mean(dim=-1).sqrt()
        return self.noise * math.sqrt(self.subspace.hidden_size / self.subspace.rank) * root_mean_square

    def log_density(self, latents: torch.Tensor, means: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Log-density of latents, up to the constant -R/2 log 2 pi.

        Args:
            latents (`torch.Tensor` of shape `(..., hidden_size)`):
                Latents that were fed.
            means (`torch.Tensor` of shape `(..., hidden_size)`):
                Latents that the model computes.
            std (`torch.Tensor` of shape `(...)`):
                Deviation that they were drawn with.
        """
        distance = self.subspace.coordinates(latents.float() - means.float()).square().sum(dim=-1)
        return -distance / (2 * std.square()) - self.subspace.rank * std.log()

    def divergence(self, means: torch.Tensor, reference: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """KL divergence between Gaussians of the same deviation in every direction, ||mu - mu_ref||^2 / (2 std^2).

        It counts all directions, so that the mean does not drift in those without noise. Shapes as in `log_density`.
        """
        return (means.float() - reference.float()).square().sum(dim=-1) / (2 * std.square())


@dataclass(eq=False)
class NoisyRollout:
    """A `latent_intervention` that adds noise to each latent, or feeds the latents of a donor, and keeps what it did.

    Args:
        policy ([`GaussianLatents`]):
            Draws the noise, from the global random numbers of the latents' device.
        donors (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`, *optional*):
            Latents that are fed instead of the model's own.
    """

    policy: GaussianLatents
    donors: torch.Tensor | None = None
    _steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __call__(self, step: int, latent: torch.Tensor) -> torch.Tensor:
        """Return what is fed instead of `latent` (B, D)."""
        std = self.policy.std(latent)
        if self.donors is None:
            noise = self.policy.subspace.draw(std).to(latent)
            fed = latent + noise
        else:
            fed = self.donors[:, step].to(latent)
            noise = torch.zeros_like(latent)
        self._steps.append((fed, noise, std))
        return fed

    @property
    def record(self) -> "LatentRecord":
        """Everything that replays the rollout."""
        fed, noise, std = (torch.stack(each, dim=1) for each in zip(*self._steps, strict=True))
        is_given = torch.full((len(fed),), self.donors is not None, device=fed.device)
        return LatentRecord(fed, noise, std, is_given)


@dataclass(frozen=True, eq=False)
class LatentRecord:
    """Latents of some rollouts.

    Args:
        fed (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            Latents that were fed, z = mu + noise.
        noise (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            Noise that was added to the model's own.
        std (`torch.Tensor` of shape `(batch_size, num_latents)`):
            Its deviation along each direction.
        is_given (`torch.BoolTensor` of shape `(batch_size,)`):
            True if a row was fed the latents of a donor.
    """

    fed: torch.Tensor
    noise: torch.Tensor
    std: torch.Tensor
    is_given: torch.Tensor

    @classmethod
    def cat(cls, parts: Sequence["LatentRecord"]) -> "LatentRecord":
        """Concatenate the rows of several records."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, rows: slice | torch.Tensor) -> "LatentRecord":
        """The record of some rows."""
        return LatentRecord(self.fed[rows], self.noise[rows], self.std[rows], self.is_given[rows])

    def replay(self, step: int, latent: torch.Tensor) -> torch.Tensor:
        """Feed what was fed, as a function of what the model computes now: the `latent_intervention` of the pathwise estimator."""
        moved = latent + self.noise[:, step].to(latent)
        return torch.where(self.is_given[:, None], self.fed[:, step].to(latent), moved)
