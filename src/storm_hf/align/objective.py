"""The objective of Stage I: pull the latents onto the target trajectory.

L_align = mean over K of (1 - cos(z, g)) + mean over D of (z - g)^2, in the unit space of the targets (arXiv 2605.26014,
Stage I, has the squared error alone). Pure functions of tensors.

Axes: B batch, N known targets, K latent steps, D hidden size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from storm_hf.errors import LatentError


AlignLoss = Literal["cosine_mse", "mse", "cosine", "infonce"]
Reduction = Literal["mean", "sum"]

TEMPERATURE = 0.1  # of InfoNCE, on cosines
_TIE = 1e-6  # cosines of equal targets differ by rounding


@dataclass(frozen=True)
class Alignment:
    """Fit of a batch of latents to their targets.

    Args:
        loss (`torch.Tensor` of shape `(batch_size,)`):
            L_align of each row.
        cosine (`torch.Tensor`):
            Mean cosine between latents and their targets.
        cosine_baseline (`torch.Tensor`, *optional*):
            Mean cosine between latents and the targets of other rows at the same step. A cosine means nothing without it:
            raw features reach .99 on both. None where there is no other row.
        retrieval (`torch.Tensor`, *optional*):
            Share of latents whose nearest target at the same step is their own; targets that are equally near share the count.
        retrieval_chance (`torch.Tensor`, *optional*):
            Chance level of the retrieval: 1 / N.
    """

    loss: torch.Tensor
    cosine: torch.Tensor
    cosine_baseline: torch.Tensor | None
    retrieval: torch.Tensor | None
    retrieval_chance: torch.Tensor | None

    @property
    def gauges(self) -> dict[str, torch.Tensor]:
        """The measures of the latents by the names that they are logged under, as far as there are any."""
        measures = {
            "latent_cosine": self.cosine,
            "latent_cosine_baseline": self.cosine_baseline,
            "latent_retrieval": self.retrieval,
            "latent_retrieval_chance": self.retrieval_chance,
        }
        return {name: value for name, value in measures.items() if value is not None}


def trajectory_alignment(
    latents: torch.Tensor,
    targets: torch.Tensor,
    kind: AlignLoss = "cosine_mse",
    reduction: Reduction = "mean",
    *,
    known: torch.Tensor | None = None,
    first: int = 0,
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
            Reduction of the squared error over the hidden size: `"mean"` or `"sum"`.
        known (`torch.Tensor` of shape `(num_known, num_latents, hidden_size)`, *optional*):
            All targets that the own ones are compared with, and the negatives of `"infonce"`; `targets` are rows of it. By
            default `targets` alone.
        first (`int`, *optional*, defaults to `0`):
            Row of `known` in which `targets` begin.

    Raises:
        LatentError: If the shapes differ.
    """
    if latents.shape != targets.shape:
        raise LatentError(
            f"Expected latents and targets of one shape, got {tuple(latents.shape)} and {tuple(targets.shape)}. Make the "
            "targets with the model's `num_latents`, and let each process see its own rows only (`accelerate launch`)."
        )
    latents, targets = latents.float(), targets.float()
    known = targets if known is None else known.float()
    rows = torch.arange(len(latents), device=latents.device)
    similarity = _cosine_similarities(latents, known)  # (K, B, N)
    own = similarity[:, rows, first + rows].T  # (B, K)
    loss = _alignment_loss(latents, targets, own, similarity, kind, reduction, first)
    baseline, retrieval, chance = _gauges(similarity.detach(), own.detach())
    return Alignment(loss, own.mean().detach(), baseline, retrieval, chance)


def _cosine_similarities(latents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cosine between every latent and every target of the same step, (K, B latents, N targets)."""
    return torch.einsum("ikd,jkd->kij", F.normalize(latents, dim=-1), F.normalize(targets, dim=-1))


def _alignment_loss(
    latents: torch.Tensor,
    targets: torch.Tensor,
    own: torch.Tensor,
    similarity: torch.Tensor,
    kind: AlignLoss,
    reduction: Reduction,
    first: int = 0,
) -> torch.Tensor:
    """L_align of each row, (B,), from the tensors and their cosines: `own` (B, K) and `similarity` (K, B, N)."""
    if kind == "infonce":
        label = first + torch.arange(len(latents), device=similarity.device).expand(similarity.shape[:2])
        each = F.cross_entropy(similarity.transpose(1, 2) / TEMPERATURE, label, reduction="none")  # (K, B)
        return each.mean(dim=0)
    squared = (latents - targets).pow(2)  # (B, K, D)
    squared = (squared.sum(dim=-1) if reduction == "sum" else squared.mean(dim=-1)).mean(dim=1)
    cosine = (1 - own).mean(dim=1)
    return {"cosine_mse": cosine + squared, "mse": squared, "cosine": cosine}[kind]


def _gauges(similarity: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Baseline, retrieval and its chance level; None of each where no other row is known."""
    num_steps, num_rows, num_known = similarity.shape
    if num_known == 1:
        return None, None, None
    baseline = (similarity.sum() - own.sum()) / (num_steps * num_rows * (num_known - 1))
    nearest = similarity.amax(dim=2) - _TIE  # (K, B)
    num_nearest = (similarity >= nearest[..., None]).sum(dim=2)
    retrieval = ((nearest <= own.T) / num_nearest).mean()
    return baseline, retrieval, torch.tensor(1 / num_known, device=similarity.device)
