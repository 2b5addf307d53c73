"""Log-probabilities of a rollout under the weights of now: the policy of [`StormGRPOTrainer`].

Two unbiased estimators of the gradient of E[A], and never both:

- `pathwise`: z = mu + noise stays in the graph, and A log pi(a | z) is differentiated through the exact rollout. This is Stage II
  with an advantage in front. The latents have no density of their own.
- `score`: z is a constant, and A (sum_t log N(z_t; mu_t, std_t^2) + log pi(a | z)) is differentiated, from one parallel pass.
  The variance grows with the number of latents. Its noise has every direction of a latent: a density in a subspace says nothing
  of a mean that moves out of it, and the gradient would lack that part.

A completion is `<|latent|> x K <|latent_end|> answer`; its prompt ends in `<|latent_start|>`.

Axes: B batch, S sequence, C completion, K latent steps, D hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.inputs.prompts import join_prompts
from storm_hf.model.latent_block_storm import PER_TOKEN_INPUTS
from storm_hf.reinforce.noise import GaussianLatents, LatentRecord
from storm_hf.training.collected_latents import collected_latents


Estimator = Literal["pathwise", "score"]
Prompt = Mapping[str, torch.Tensor]  # model inputs of one prompt

_PER_TOKEN = ("clip_token_mask", *PER_TOKEN_INPUTS)
_FROM_IDS = ("input_ids", "attention_mask")


@dataclass(frozen=True, eq=False)
class ReplayedLogProbs:
    """Log-probabilities of completions, and the latents that the model computes on the way.

    Args:
        log_probs (`torch.Tensor` of shape `(batch_size, completion_length)`):
            Zero at the end of the block, and with the pathwise estimator at the latents.
        entropy (`torch.Tensor` of the same shape, *optional*):
            Entropy at the answer's tokens; zero elsewhere.
        means (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`):
            The model's own latents, mu.
        aux_loss (`torch.Tensor`, *optional*):
            Load-balancing loss of a mixture of experts.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor | None
    means: torch.Tensor
    aux_loss: torch.Tensor | None = None

    @classmethod
    def cat(cls, parts: Sequence["ReplayedLogProbs"]) -> "ReplayedLogProbs":
        """Concatenate the rows of several passes."""
        entropies = [part.entropy for part in parts if part.entropy is not None]
        aux_losses = [part.aux_loss for part in parts if part.aux_loss is not None]
        return cls(
            torch.cat([part.log_probs for part in parts]),
            torch.cat(entropies) if entropies else None,
            torch.cat([part.means for part in parts]),
            torch.stack(aux_losses).mean() if aux_losses else None,
        )


def latent_arguments(record: LatentRecord, estimator: Estimator) -> dict[str, Any]:
    """Choose the arguments of `forward` that feed the latents of a rollout once more.

    Where no gradient is asked for, and with the score estimator, latents are given. That is the rollout in one parallel pass.
    """
    if estimator == "pathwise" and torch.is_grad_enabled():
        return {"latent_intervention": record.replay}
    return {"forced_latents": record.fed}


def prompt_arguments(
    prompts: Sequence[Prompt], num_latents: int, num_before: int, num_after: int
) -> dict[str, torch.Tensor]:
    """Join what prompts show and what they say of each token, for sequences that go on with a completion.

    Args:
        prompts (`Sequence[Mapping[str, torch.Tensor]]`):
            Model inputs of each row's prompt, which ends in its whole latent block.
        num_latents (`int`):
            Number K of latents in the block.
        num_before (`int`):
            Columns up to `<|latent_start|>`, with padding on the left.
        num_after (`int`):
            Columns of the completions.

    Returns:
        `dict`: Arguments of `forward` besides ids and mask.
    """
    arguments = join_prompts([dict(prompt) for prompt in prompts], pad_token_id=0)
    for name in arguments.keys() & set(_PER_TOKEN):
        before = arguments[name][:, : -(num_latents + 1)]
        padding = (num_before - before.shape[1], num_after)
        arguments[name] = nn.functional.pad(before, padding)
    return {name: value for name, value in arguments.items() if name not in _FROM_IDS}


@dataclass(frozen=True, eq=False)
class Replay:
    """Replays rollouts through a model with TRL's fused head.

    Args:
        policy ([`GaussianLatents`]):
            Density of the latents.
        estimator (`str`):
            `"pathwise"` or `"score"`.
    """

    policy: GaussianLatents
    estimator: Estimator

    def __call__(
        self,
        model: nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        record: LatentRecord,
        prompts: Sequence[Prompt],
        completion_length: int,
        **options: object,
    ) -> ReplayedLogProbs:
        """Compute log-probabilities of completions.

        Args:
            model (`nn.Module`):
                A [`StormForConditionalGeneration`] with TRL's fused head, wrapped or not.
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Prompts and completions.
            attention_mask (`torch.Tensor` of the same shape):
                0 where padding is.
            record ([`LatentRecord`]):
                Latents of the rollouts.
            prompts (`Sequence[Mapping[str, torch.Tensor]]`):
                Model inputs of each row's prompt.
            completion_length (`int`):
                Columns of the completions.
            options:
                Further arguments of `forward`.
        """
        num_latents, num_columns = record.fed.shape[1], input_ids.shape[1]
        num_before = num_columns - completion_length
        first = num_before + num_latents  # the end of the block, whose state predicts the answer
        attention_mask = attention_mask.clone()
        attention_mask[:, num_before : first + 1] = 1  # TRL masks the whole completion of a truncated answer
        labels = input_ids.masked_fill(attention_mask == 0, IGNORED_LABEL)[:, first:]
        with collected_latents(extract_model_from_parallel(model)) as latents:
            output = model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                **prompt_arguments(prompts, num_latents, num_before, completion_length),
                **latent_arguments(record, self.estimator),
                **options,
                labels=labels,
                states_to_keep=num_columns - first,
                fused_lm_head=True,
            )
        density = self._density(latents[-1], record)
        return ReplayedLogProbs(
            torch.cat([density, output.log_probs], dim=1),
            None if output.entropy is None else torch.cat([torch.zeros_like(density), output.entropy], dim=1),
            latents[-1],
            output.aux_loss,
        )

    def _density(self, means: torch.Tensor, record: LatentRecord) -> torch.Tensor:
        """Log-density of the latents and of the end of the block, (B, K + 1): zero where nothing was drawn."""
        nothing = means.new_zeros(len(means), means.shape[1], dtype=torch.float32)
        if self.estimator == "score":
            drawn = self.policy.log_density(record.fed, means, record.std)
            nothing = torch.where(record.is_given[:, None], nothing, drawn)
        return nn.functional.pad(nothing, (0, 1))
