"""The objective of a thought that ends by itself: the answer's loss where it may end, and a prior on where it does.

L = sum_k p_k L_answer(k) + weight * KL(p || prior) (PonderNet, arXiv 2107.05407), with at most K steps. Pure functions of tensors.

Axes: B batch, K latent steps.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from storm_hf.model.halting_storm import halting_log_probabilities


HaltingPrior = Literal["geometric", "uniform"]


@dataclass(frozen=True)
class HaltingLoss:
    """Loss of a batch whose thoughts may end after every step.

    Args:
        answer (`torch.Tensor` of shape `(batch_size,)`):
            Expected loss of each row's answer, summed over its tokens.
        divergence (`torch.Tensor` of shape `(batch_size,)`):
            KL(p || prior) of each row, in nats.
        num_latents (`torch.Tensor` of shape `(batch_size,)`):
            Expected number of latents of each row.
    """

    answer: torch.Tensor
    divergence: torch.Tensor
    num_latents: torch.Tensor


def halting_loss(step_losses: torch.Tensor, halting_logits: torch.Tensor, prior: torch.Tensor) -> HaltingLoss:
    """Weight the losses of the answers after each step with the probability that the thought ends there.

    Args:
        step_losses (`torch.Tensor` of shape `(batch_size, num_latents)`):
            Losses of the answers.
        halting_logits (`torch.Tensor` of shape `(batch_size, num_latents)`):
            Output of the halting head after each step.
        prior (`torch.Tensor` of shape `(num_latents,)`):
            Log probabilities; see `halting_prior`.
    """
    log_probabilities = halting_log_probabilities(halting_logits.float())  # (B, K)
    probabilities = log_probabilities.exp()
    steps = torch.arange(1, len(prior) + 1, device=prior.device)
    return HaltingLoss(
        answer=(probabilities * step_losses).sum(dim=1),
        divergence=(probabilities * (log_probabilities - prior)).sum(dim=1),
        num_latents=(probabilities * steps).sum(dim=1),
    )


def halting_prior(kind: HaltingPrior, num_latents: int, mean_steps: float) -> torch.Tensor:
    """Log probabilities of a thought's length before anything was seen.

    Args:
        kind (`str`):
            `"geometric"`, cut off at the bound and scaled to one; or `"uniform"`, under which the divergence is log K less the entropy
            of the head: a geometric prior starves late steps (Ouro, arXiv 2510.25741), a uniform one does not ask for short thoughts.
        num_latents (`int`):
            Bound K.
        mean_steps (`float`):
            Mean of the geometric distribution before it is cut off, 1 or more.

    Returns:
        `torch.Tensor` of shape `(num_latents,)`: In float32.
    """
    steps = torch.arange(num_latents, dtype=torch.float32)
    share_going_on = 1 - 1 / mean_steps
    slope = torch.tensor(share_going_on if kind == "geometric" else 1.0).clamp(min=1e-6).log()
    return (steps * slope).log_softmax(dim=0)
