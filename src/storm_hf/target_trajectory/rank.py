"""Choice of the rank: the number of principal components that hold the state of the world.

Axes: N clips or rows, K latent steps, F features of a slot, R rank, C outputs.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from storm_hf.errors import LatentError
from storm_hf.target_trajectory.whiten import SlotMoments, SlotStatistics, principal_components


RANKS = (8, 16, 24, 32, 40, 48, 56, 64, 96, 128)
_READ = 0.1  # of the slots that the most frequent value gets wrong: what a probe has to get right to read a part
_TOLERANCE = 0.01  # of the accuracy of the best probe
_EXPLAINED = 0.95  # of the variance, where there is nothing to probe
_TRAIN_SHARE = 0.8
_RIDGE = 0.01  # per clip, on components of unit variance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RankReport:
    """State accuracy at each rank, and the chosen rank.

    Args:
        rank (`int`):
            The smallest that suffices.
        ranks (`tuple[int, ...]`):
            The ranks tried.
        explained (`tuple[float, ...]`):
            Share of the variance that each holds.
        accuracy (`tuple[float, ...]`, *optional*):
            Of a linear probe that reads the state off each, on clips it was not fitted on; of the part of the state that it
            reads worst, among those that it reads at some rank.
    """

    rank: int
    ranks: tuple[int, ...]
    explained: tuple[float, ...]
    accuracy: tuple[float, ...] | None = None

    def __str__(self) -> str:
        lines = ["rank  explained  probe"]
        for index, rank in enumerate(self.ranks):
            probe = "    -" if self.accuracy is None else f"{self.accuracy[index]:.3f}"
            chosen = "  <- chosen" if rank == self.rank else ""
            lines.append(f"{rank:4d}  {self.explained[index]:9.3f}  {probe}{chosen}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)


def choose_rank(
    trajectories: torch.Tensor,
    labels: Sequence[Sequence[object]] | np.ndarray | None = None,
    ranks: Sequence[int] = RANKS,
    *,
    statistics: SlotStatistics = "pooled",
    hidden_size: int | None = None,
) -> RankReport:
    """Find the smallest rank that holds the state.

    A static layout can fill the first components and leave the state to later ones, so variance alone is a poor guide: where
    the states are known, a linear probe decides.

    Args:
        trajectories (`torch.Tensor` of shape `(num_clips, num_latents, slot_size)`):
            Pooled, of the training split.
        labels (sequence of shape `(num_clips, num_latents)` or `(num_clips, num_latents, num_parts)`, *optional*):
            State of each slot. A state of many parts, such as tiles, is probed part by part, and every part has to be there
            that any rank shows; states that no rank shows are warned about.
        ranks (`Sequence[int]`, *optional*):
            The ranks to try. Those that do not fit the slots are left out.
        statistics (`str`, *optional*, defaults to `"pooled"`):
            See [`WhiteningStatistics.fit`].
        hidden_size (`int`, *optional*):
            Size of the latents, which no rank exceeds. Defaults to the size of a slot.

    Returns:
        [`RankReport`]: With labels, the smallest rank whose probe is within .01 of the best one; without, or where no probe
        reads anything, the smallest that explains .95 of the variance, or the largest if none does.

    Raises:
        LatentError: If no rank fits, or the labels do not belong to the trajectories.
    """
    moments = SlotMoments.collect([trajectories], statistics)
    largest = min(len(moments.covariance), hidden_size or len(moments.covariance))
    ranks = tuple(sorted({rank for rank in ranks if 1 <= rank <= largest}))
    if not ranks:
        raise LatentError(f"Expected ranks from 1 to {largest}, the size of a slot, but got none of them.")
    explained = _explained(moments, ranks)
    accuracy = None
    if labels is not None:
        states = _one_hot(labels, trajectories.shape[:2])
        accuracy = _worst_part(_probe(trajectories, moments, states, ranks), states)
    if accuracy is None:
        enough = [rank for rank, share in zip(ranks, explained, strict=True) if share >= _EXPLAINED]
        return RankReport(enough[0] if enough else ranks[-1], ranks, explained)
    best = max(accuracy)
    rank = next(rank for rank, value in zip(ranks, accuracy, strict=True) if value >= best - _TOLERANCE)
    return RankReport(rank, ranks, explained, accuracy)


def _explained(moments: SlotMoments, ranks: tuple[int, ...]) -> tuple[float, ...]:
    variances, _ = principal_components(moments.covariance)
    return tuple(float(variances[:rank].sum() / variances.sum()) for rank in ranks)


def _one_hot(labels: Sequence[Sequence[object]] | np.ndarray, shape: torch.Size) -> list[torch.Tensor]:
    """Turn labels into one matrix (N * K, number of values) per part of the state."""
    table = np.asarray(labels)
    if table.shape[:2] != tuple(shape) or table.ndim not in (2, 3):
        raise LatentError(
            f"Expected a label for each of {shape[0]} clips and {shape[1]} slots but got labels of shape {table.shape}."
        )
    parts = table.reshape(shape[0] * shape[1], -1).T
    codes = [torch.from_numpy(np.unique(part, return_inverse=True)[1]) for part in parts]
    return [torch.nn.functional.one_hot(code).double() for code in codes]


def _probe(
    trajectories: torch.Tensor, moments: SlotMoments, states: list[torch.Tensor], ranks: tuple[int, ...]
) -> torch.Tensor:
    """Fit a ridge regression from the first r components to the states and read its accuracy on held-out clips, (ranks, parts)."""
    num_clips, num_latents = trajectories.shape[:2]
    split = int(num_clips * _TRAIN_SHARE) * num_latents
    if not 0 < split < num_clips * num_latents:
        raise LatentError(f"Expected at least two clips to probe but got {num_clips}.")
    variances, components = principal_components(moments.covariance)
    scale = (variances + 1e-9 * variances[0]).rsqrt()
    whitened = ((trajectories.double() - moments.mean) @ components * scale).flatten(0, 1)  # (N * K, F)
    inputs = torch.cat([torch.ones_like(whitened[:, :1]), whitened], dim=1)
    together = torch.cat(states, dim=1)
    accuracy = []
    for rank in ranks:
        weights = ridge_weights(inputs[:split, : rank + 1], together[:split], _RIDGE)
        read = (inputs[split:, : rank + 1] @ weights).split([part.shape[1] for part in states], dim=1)
        right = [scores.argmax(1) == part[split:].argmax(1) for scores, part in zip(read, states, strict=True)]
        accuracy.append(torch.stack(right).double().mean(dim=1))
    return torch.stack(accuracy)


def _worst_part(accuracy: torch.Tensor, states: list[torch.Tensor]) -> tuple[float, ...] | None:
    """Of the parts that some rank shows, the accuracy of the one read worst, at each rank; nothing if none is shown."""
    guessing = torch.stack([part.mean(dim=0).max() for part in states])
    is_read = accuracy.amax(dim=0) >= guessing + _READ * (1 - guessing)
    if not is_read.all():
        logger.warning(
            "%d of %d parts of the state can be read at no rank: the backbone does not see them in the thought videos.",
            int((~is_read).sum()),
            len(states),
        )
    return tuple(accuracy[:, is_read].amin(dim=1).tolist()) if is_read.any() else None


def ridge_weights(inputs: torch.Tensor, outputs: torch.Tensor, penalty: float) -> torch.Tensor:
    """Solve a ridge regression without an intercept, in the smaller of its two spaces.

    Args:
        inputs (`torch.Tensor` of shape `(num_rows, num_features)`):
            In float64.
        outputs (`torch.Tensor` of shape `(num_rows, num_outputs)`):
            In float64.
        penalty (`float`):
            On the squared weights, per row.

    Returns:
        `torch.Tensor` of shape `(num_features, num_outputs)`: The weights.
    """
    num_rows, num_features = inputs.shape
    damping = penalty * num_rows * torch.eye(min(num_rows, num_features), dtype=inputs.dtype)
    if num_features <= num_rows:
        return torch.linalg.solve(inputs.T @ inputs + damping, inputs.T @ outputs)
    return inputs.T @ torch.linalg.solve(inputs @ inputs.T + damping, outputs)
