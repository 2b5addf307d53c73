"""Losses of plain rows: the divergence from the model before, and the cross entropy.

Axes: B batch, S sequence, N supervised tokens, V vocabulary, k recorded tokens of the vocabulary.
"""

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.inputs.prompts import pad_rows


_NEVER = -1e4  # log-probability of an empty set of tokens: finite, so that 0 times it is 0


def stack_language(
    rows: Sequence[dict[str, torch.Tensor]], device: torch.device, side: str = "right"
) -> dict[str, torch.Tensor]:
    """Pad encoded plain rows to `input_ids`, `attention_mask` and `labels` of shape (B, S).

    Args:
        rows (`Sequence[dict[str, torch.Tensor]]`):
            Rows with `input_ids` and `labels`.
        device (`torch.device`):
            Device of the batch.
        side (`str`, *optional*, defaults to `"right"`):
            Side of the padding. On the right, positions begin at 0 for every backbone.
    """
    ids = [row["input_ids"] for row in rows]
    padding = int(ids[0][0])  # a token of a text, which no backbone takes for a clip; it is masked
    batch = {
        "input_ids": pad_rows(ids, padding, side),
        "attention_mask": pad_rows([torch.ones_like(tokens) for tokens in ids], 0, side),
        "labels": pad_rows([row["labels"] for row in rows], IGNORED_LABEL, side),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def supervised_logits(
    model: PreTrainedModel | PeftModel | nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a model without latents, and take the logits before each supervised token.

    The whole model is called, since FSDP and ZeRO-3 gather the weights of its parts there. It projects only columns in which
    a token is supervised.

    Args:
        model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
            The model.
        batch (`dict[str, torch.Tensor]`):
            Result of [`stack_language`].

    Returns:
        `tuple`: Logits of shape (N, V) in float32, row by row, and the tokens that they should predict, of shape (N,).
    """
    labels = batch["labels"][:, 1:]
    is_supervised = labels != IGNORED_LABEL  # (B, S - 1)
    columns = is_supervised.any(dim=0).nonzero()[:, 0]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        logits_to_keep=columns,
    ).logits
    return logits[is_supervised[:, columns]].float(), labels[is_supervised]


def log_probs_with_rest(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Compute log-probabilities of some tokens, and of all others together.

    Args:
        logits (`torch.Tensor` of shape `(num_tokens, vocab_size)`):
            Logits in float32.
        token_ids (`torch.LongTensor` of shape `(num_tokens, k)`):
            Different tokens at each position.

    Returns:
        `torch.Tensor` of shape `(num_tokens, k + 1)`: The last column is that of all others, next to minus infinity where there
        are none.
    """
    total = logits.logsumexp(dim=-1, keepdim=True)  # (N, 1)
    chosen = logits.gather(-1, token_ids) - total
    if token_ids.shape[-1] == logits.shape[-1]:
        rest = torch.full_like(total, _NEVER)
    else:
        rest = logits.scatter(-1, token_ids, -torch.inf).logsumexp(dim=-1, keepdim=True) - total
    return torch.cat([chosen, rest], dim=-1).clamp(min=_NEVER)


def language_kl(logits: torch.Tensor, before_ids: torch.Tensor, before_log_probs: torch.Tensor) -> torch.Tensor:
    """Compute KL(before || now) of each token, over the recorded tokens of the vocabulary and the rest as one.

    Joining tokens to one never raises a divergence: it is a lower bound of the exact one, and equal to it if all are recorded.

    Args:
        logits (`torch.Tensor` of shape `(num_tokens, vocab_size)`):
            Logits of the model now, in float32.
        before_ids (`torch.LongTensor` of shape `(num_tokens, k)`):
            Recorded tokens.
        before_log_probs (`torch.Tensor` of shape `(num_tokens, k + 1)`):
            Their log-probabilities before, and that of the rest.
    """
    now = log_probs_with_rest(logits, before_ids)
    return (before_log_probs.exp() * (before_log_probs - now)).sum(dim=-1)
