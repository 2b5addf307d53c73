"""Whitening of target trajectories: what all thought videos share is removed, what differs gets unit variance.

Pooled features of two moments are nearly the same vector (cosine .99): background and layout fill it, the state of the world is
one hundredth of its variance. A model that is aligned to them learns the background. So the mean is removed, the first r
principal components are brought to unit variance, and the rest, which is noise, is dropped.

Axes: B batch, K latent steps, F features of a pooled slot, D hidden size, R rank.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from storm_hf.errors import LatentError


SlotStatistics = Literal["pooled", "per_slot"]

_RIDGE = 1e-3  # of the largest variance, so that components which hardly vary are not blown up to full size
_ROUNDING = 1e-8  # of the largest variance: float32 pooling leaves as much in components that never varied
_MAX_SLOT_SIZE = 16_384  # a covariance of 2 GiB


logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SlotMoments:
    """Statistics of one pass over the training trajectories: the mean of each slot and the covariance of all of them.

    Args:
        mean (`torch.Tensor` of shape `(num_latents or 1, slot_size)`):
            One mean per slot, or one of all slots.
        covariance (`torch.Tensor` of shape `(slot_size, slot_size)`):
            Around those means, shared by all slots.
    """

    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def collect(cls, batches: Iterable[torch.Tensor], statistics: SlotStatistics = "pooled") -> "SlotMoments":
        """Gather mean and covariance of trajectories (B, K, F), in one pass and in float64."""
        count, total, second = 0, torch.empty(0), torch.empty(0)
        for batch in batches:
            batch = batch.double()
            if count == 0:
                _check_first(batch, statistics)
                total = batch.new_zeros(batch.shape[1:])  # (K, F)
                second = batch.new_zeros(batch.shape[2], batch.shape[2])  # (F, F)
            if batch.shape[1:] != total.shape:
                raise LatentError(
                    f"Expected trajectories of shape {tuple(total.shape)} like the first ones but got "
                    f"{tuple(batch.shape[1:])}. Pool all of them to the same number of slots."
                )
            total += batch.sum(dim=0)
            flat = batch.flatten(0, 1)
            second += flat.T @ flat
            count += len(batch)
        if count < 2:
            raise LatentError(f"Expected two trajectories or more to fit statistics on but got {count}.")
        mean = total / count
        if statistics == "pooled":
            mean = mean.mean(dim=0, keepdim=True)
        covariance = second / (count * len(total)) - mean.T @ mean / len(mean)
        return cls(mean, covariance)


@dataclass(frozen=True, eq=False)
class WhiteningStatistics:
    """From pooled features to unit space, where every element of a trajectory has unit root mean square.

    Args:
        mean (`torch.Tensor` of shape `(1, slot_size)` or `(num_latents, slot_size)`):
            Mean of the training set over all slots, or of each slot.
        projection (`torch.Tensor` of shape `(slot_size, hidden_size)`):
            Whitens, keeps the first `rank` components, rotates them into the hidden size and scales: one matrix.
        variances (`torch.Tensor` of shape `(slot_size,)`):
            Variance of each principal component of the training set, the largest first.
        rank (`int`):
            Number r of components kept.
    """

    mean: torch.Tensor
    projection: torch.Tensor
    variances: torch.Tensor
    rank: int

    @classmethod
    def fit(
        cls,
        trajectories: torch.Tensor | Iterable[torch.Tensor],
        rank: int,
        *,
        statistics: SlotStatistics = "pooled",
        hidden_size: int | None = None,
        seed: int = 0,
    ) -> "WhiteningStatistics":
        """Learn the statistics of a training set.

        Args:
            trajectories (`torch.Tensor` of shape `(batch_size, num_latents, slot_size)` or an iterable of such):
                Pooled trajectories of the training split. An iterable is read once.
            rank (`int`):
                Number r of principal components to keep; `choose_rank` finds a good one. Components that never varied, since
                there are fewer trajectories than components, are left out with a warning: new clips would vary there, and
                be blown up.
            statistics (`str`, *optional*, defaults to `"pooled"`):
                `pooled` shares one mean among all slots and so serves trajectories longer than trained. `per_slot` also
                removes what each slot has in common over all clips, such as a clock, and knows no other length.
            hidden_size (`int`, *optional*):
                Size of the latents. Defaults to the size of a slot, and is less than it when cells are concatenated.
            seed (`int`, *optional*, defaults to `0`):
                Draws the rotation into the hidden size, where that is not the size of a slot.

        Returns:
            [`WhiteningStatistics`]: In float32.

        Raises:
            LatentError: If shapes differ, the rank does not fit, there are less than two trajectories, or they are
                all the same.
        """
        batches = [trajectories] if isinstance(trajectories, torch.Tensor) else trajectories
        return cls.from_moments(SlotMoments.collect(batches, statistics), rank, hidden_size=hidden_size, seed=seed)

    @classmethod
    def from_moments(
        cls, moments: SlotMoments, rank: int, *, hidden_size: int | None = None, seed: int = 0
    ) -> "WhiteningStatistics":
        """Make statistics of moments that were gathered before. Arguments as in `fit`."""
        slot_size = len(moments.covariance)
        hidden_size = slot_size if hidden_size is None else hidden_size
        if not 1 <= rank <= min(slot_size, hidden_size):
            raise LatentError(
                f"Expected a rank from 1 to {min(slot_size, hidden_size)} for slots of {slot_size} features and a hidden "
                f"size of {hidden_size} but got {rank}."
            )
        variances, components = principal_components(moments.covariance)
        rank = _rank_that_varies(variances, rank)
        kept = components[:, :rank]
        whitening = kept / (variances[:rank] + _RIDGE * variances[0]).sqrt()  # (F, R)
        rotation = kept.T if hidden_size == slot_size else _random_rotation(rank, hidden_size, seed).to(kept)  # (R, D)
        projection = whitening @ rotation
        mean_square = (projection * (moments.covariance @ projection)).sum() / hidden_size  # of the whitened elements
        return cls(moments.mean.float(), (projection / mean_square.sqrt()).float(), variances.float(), rank)

    @property
    def num_latents(self) -> int | None:
        """The one number of slots that statistics per slot serve; None for pooled ones, which serve every number."""
        return None if len(self.mean) == 1 else len(self.mean)

    @property
    def explained(self) -> torch.Tensor:
        """Share of the variance that the first 1, 2, ... components hold, of shape (slot_size,)."""
        return (self.variances.double().cumsum(dim=0) / self.variances.double().sum()).float()

    def transform(self, trajectory: torch.Tensor) -> torch.Tensor:
        """Bring pooled features into unit space.

        Args:
            trajectory (`torch.Tensor` of shape `(..., num_latents, slot_size)`):
                Pooled like the training set.

        Returns:
            `torch.Tensor` of shape `(..., num_latents, hidden_size)`: In float32.

        Raises:
            LatentError: If the size of a slot is another than trained, or statistics per slot meet another number
                of slots.
        """
        self._check(trajectory)
        mean, projection = self.mean.to(trajectory.device), self.projection.to(trajectory.device)
        return (trajectory.float() - mean) @ projection

    def _check(self, trajectory: torch.Tensor) -> None:
        if trajectory.ndim < 2 or trajectory.shape[-1] != len(self.projection):
            raise LatentError(
                f"Expected trajectories of shape (..., num_latents, {len(self.projection)}) but got "
                f"{tuple(trajectory.shape)}. Pool the features as the training set was, or fit the statistics again."
            )
        if self.num_latents not in (None, trajectory.shape[-2]):
            raise LatentError(
                f"These statistics know the mean of each of {self.num_latents} slots, but the trajectory has "
                f"{trajectory.shape[-2]}. Fit them with statistics='pooled', which serves every number of slots."
            )


def principal_components(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the variances (F,), the largest first, and the components (F, F) in columns, each with its sign fixed.

    Raises:
        LatentError: If nothing varies.
    """
    variances, components = torch.linalg.eigh(covariance)
    variances, components = variances.flip(0).clamp_min(0), components.flip(1)
    if not variances[0] > 0:
        raise LatentError(
            "Expected trajectories that differ but all of them are the same, or not finite. Check the thought videos."
        )
    strongest = components.gather(0, components.abs().argmax(dim=0, keepdim=True))
    return variances, components * strongest.sign()


def _rank_that_varies(variances: torch.Tensor, rank: int) -> int:
    """Limit a rank to the components whose variance is more than rounding."""
    varying = int((variances > _ROUNDING * variances[0]).sum())
    if rank > varying:
        logger.warning(
            "Whitening of rank %d was asked for, but the training trajectories vary in %d components only, which are kept. "
            "Fit the targets to more clips for a higher rank.",
            rank,
            varying,
        )
    return min(rank, varying)


def _random_rotation(rank: int, hidden_size: int, seed: int) -> torch.Tensor:
    """Draw orthonormal rows of shape (rank, hidden_size)."""
    noise = torch.randn(hidden_size, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(noise).Q.T


def _check_first(batch: torch.Tensor, statistics: str) -> None:
    if statistics not in ("pooled", "per_slot"):
        raise LatentError(f"Expected statistics pooled or per_slot but got {statistics!r}.")
    if batch.ndim != 3:
        raise LatentError(
            f"Expected trajectories of shape (batch, num_latents, slot size) but got {tuple(batch.shape)}."
        )
    if batch.shape[2] > _MAX_SLOT_SIZE:
        raise LatentError(
            f"Expected slots of at most {_MAX_SLOT_SIZE} features but got {batch.shape[2]}: their covariance would not fit "
            "into memory. Use layout='average', or fewer cells."
        )
