"""Words of a reasoning step, read from the state that its latent is made from by the language model's own head.

L_words = mean over K of the mean over the distinct tokens w of step k of -log softmax(head(h_k))_w, where the latent is projector(h_k).
No weights are added: the checkpoint is that of a run without it.

Axes: B batch, K latent steps, W tokens of a step, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from storm_hf.errors import DatasetError
from storm_hf.inputs.chain import split_steps
from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.inputs.prompts import Row


COLUMN = "chain_of_thought"


@dataclass(frozen=True)
class StepWords:
    """Tokens of the written steps of a row that each latent stands for.

    Latent k of K stands for the steps from k/K to (k + 1)/K of the chain. A step across such a boundary belongs to both, and where
    there are fewer steps than latents, several stand for the same.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's.
        num_latents (`int`):
            Number K of latents.
    """

    tokenizer: PreTrainedTokenizerBase
    num_latents: int

    def __call__(self, rows: Sequence[Row]) -> torch.Tensor:
        """Tokenize the steps of rows.

        Returns:
            `torch.LongTensor` of shape `(batch_size, num_latents, num_tokens)`: The distinct tokens of each step, then -100.

        Raises:
            DatasetError: If a row has no chain of thought.
        """
        ids = [[self._tokens(step) for step in self._steps(row)] for row in rows]
        longest = max(len(tokens) for steps in ids for tokens in steps)
        words = torch.full((len(rows), self.num_latents, longest), IGNORED_LABEL)  # (B, K, W)
        for row, steps in enumerate(ids):
            for step, tokens in enumerate(steps):
                words[row, step, : len(tokens)] = torch.tensor(tokens)
        return words

    def _steps(self, row: Row) -> list[str]:
        steps = split_steps(row.get(COLUMN) or "")
        if not steps:
            raise DatasetError(
                f"`step_words_weight` reads the column `{COLUMN}`, got a row without one. Write the steps there, or set the weight to 0."
            )
        count, num_latents = len(steps), self.num_latents
        ends = [-(-(step + 1) * count // num_latents) for step in range(num_latents)]
        return [" ".join(steps[step * count // num_latents : end]) for step, end in enumerate(ends)]

    def _tokens(self, step: str) -> list[int]:
        return sorted(set(self.tokenizer(f" {step}", add_special_tokens=False)["input_ids"]))


@dataclass(frozen=True)
class StepReading:
    """Fit of the states of a batch to the words of their steps.

    Args:
        loss (`torch.Tensor` of shape `(batch_size,)`):
            L_words of each row.
        recall (`torch.Tensor`):
            Share of the words of a step among as many of the most probable tokens.
    """

    loss: torch.Tensor
    recall: torch.Tensor


def read_step_words(logits: torch.Tensor, words: torch.Tensor) -> StepReading:
    """Compute loss and recall of the words of each step under the logits of its state.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_latents, vocab_size)`):
            The head's, of the states that latents are made from.
        words (`torch.LongTensor` of shape `(batch_size, num_latents, num_tokens)`):
            Result of [`StepWords`].
    """
    is_word = words != IGNORED_LABEL  # (B, K, W)
    log_probs = logits.float().log_softmax(dim=-1)
    of_words = log_probs.gather(2, words.clamp(min=0))
    counts = is_word.sum(dim=2)  # (B, K)
    loss = -(of_words * is_word).sum(dim=2) / counts
    least = log_probs.detach().topk(words.shape[2], dim=2).values.gather(2, counts[..., None] - 1)  # (B, K, 1)
    found = ((of_words.detach() >= least) & is_word).sum(dim=2) / counts
    return StepReading(loss.mean(dim=1), found.mean())
