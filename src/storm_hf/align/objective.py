"""The objective of Stage I: pull the latents onto the target trajectory.

L_align = mean over K of (1 - cos(z, g)) + mean over D of (z - g)^2, in the unit space of the targets (arXiv 2605.26014,
Stage I, has the squared error alone). Pure functions of tensors.

Axes: B batch, K latent steps, D hidden size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F


AlignLoss = Literal["cosine_mse", "mse", "cosine", "infonce"]
Reduction = Literal["mean", "sum"]

TEMPERATURE = 0.1  # of InfoNCE, on cosines


@dataclass(frozen=True)
class Alignment:
    """How well a batch of latents fits its targets.

    Args:
        loss (`torch.Tensor` of shape `(batch_size,)`):
            L_align of each row.
        cosine (`torch.Tensor`):
            Mean cosine between latents and their targets.
        cosine_baseline (`torch.Tensor`):
            Mean cosine between latents and the targets of other rows at the same step. A cosine means nothing without it:
            raw features reach .99 on both.
        retrieval (`torch.Tensor`):
            Share of latents whose nearest target among the batch, at the same step, is their own.
        retrieval_chance (`torch.Tensor`):
            What guessing would reach: 1 / B.
    """

    loss: torch.Tensor
    cosine: torch.Tensor
    cosine_baseline: torch.Tensor
    retrieval: torch.Tensor
    retrieval_chance: torch.Tensor


def trajectory_alignment(
    latents: torch.Tensor, targets: torch.Tensor, kind: AlignLoss = "cosine_mse", reduction: Reduction = "mean"
) -> Alignment:
    """Compare latents with their target trajectories.

    Args:
        latents (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            The model's own latents.
        targets (`torch.Tensor` of the same shape):
            The target trajectories, in unit space.
        kind (`str`, *optional*, defaults to `"cosine_mse"`):
            `"cosine_mse"`, `"mse"`, `"cosine"` or `"infonce"`.
        reduction (`str`, *optional*, defaults to `"mean"`):
            Whether the squared error is a `"mean"` or a `"sum"` over the hidden size.
    """
    latents, targets = latents.float(), targets.float()
    similarity = cosine_similarities(latents, targets)  # (K, B, B)
    own = similarity.diagonal(dim1=1, dim2=2).T  # (B, K)
    loss = alignment_loss(latents, targets, own, similarity, kind, reduction)
    with torch.no_grad():
        num_rows = len(latents)
        others = similarity.sum(dim=(1, 2)) - own.sum(dim=0)
        baseline = others.mean() / max(num_rows * (num_rows - 1), 1)
        nearest = similarity.argmax(dim=2)  # (K, B)
        is_own = nearest == torch.arange(num_rows, device=nearest.device)
    return Alignment(
        loss=loss,
        cosine=own.mean().detach(),
        cosine_baseline=baseline,
        retrieval=is_own.float().mean(),
        retrieval_chance=torch.tensor(1 / num_rows, device=loss.device),
    )


def cosine_similarities(latents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cosine between every latent and every target of the same step, (K, B latents, B targets)."""
    return torch.einsum("ikd,jkd->kij", F.normalize(latents, dim=-1), F.normalize(targets, dim=-1))


def alignment_loss(
    latents: torch.Tensor,
    targets: torch.Tensor,
    own: torch.Tensor,
    similarity: torch.Tensor,
    kind: AlignLoss,
    reduction: Reduction,
) -> torch.Tensor:
    """L_align of each row, (B,), from the tensors and their cosines: `own` (B, K) and `similarity` (K, B, B)."""
    if kind == "infonce":
        label = torch.arange(similarity.shape[1], device=similarity.device).expand(similarity.shape[:2])
        each = F.cross_entropy(similarity.transpose(1, 2) / TEMPERATURE, label, reduction="none")  # (K, B)
        return each.mean(dim=0)
    squared = (latents - targets).pow(2)  # (B, K, D)
    squared = (squared.sum(dim=-1) if reduction == "sum" else squared.mean(dim=-1)).mean(dim=1)
    cosine = (1 - own).mean(dim=1)
    return {"cosine_mse": cosine + squared, "mse": squared, "cosine": cosine}[kind]
