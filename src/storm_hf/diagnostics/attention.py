"""Attention to the latents at the first token of the answer.

Attention is not use: a model can look without heeding, which the interventions tell apart.

Axes: B batch, H heads, S sequence, K latent steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from storm_hf.diagnostics.answering_again import SharedPrompts
from storm_hf.errors import BackboneError
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.training.prompts import PromptEncoder, Row


@dataclass(frozen=True)
class LayerAttention:
    """Attention of one layer at the position where the answer begins.

    Args:
        on_latents (`float`):
            Share of its attention on the latents, mean over heads and questions, 0 to 1.
        uniform (`float`):
            Share that equal attention to every token would give.
        by_step (`list[float]`):
            Its parts on each latent.
    """

    on_latents: float
    uniform: float
    by_step: list[float]


def measure_attention(
    model: StormForConditionalGeneration, prompts: PromptEncoder, rows: Sequence[Row], *, batch_size: int = 16
) -> list[LayerAttention]:
    """Measure the attention from the position that predicts the answer's first token to the latents, layer by layer.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model. Its attention is computed by `eager` for the while.
        prompts ([`~storm_hf.training.prompts.PromptEncoder`]):
            Encodes the questions, with latents.
        rows (`Sequence`):
            The questions; a few dozen are enough.
        batch_size (`int`, *optional*, defaults to `16`):
            Questions that are run together.

    Raises:
        BackboneError: If the backbone returns no attention.
    """
    parts = []
    with torch.inference_mode(), eager_attention(model):
        for start in range(0, len(rows), batch_size):
            parts.append(_attend(SharedPrompts(model, prompts, rows[start : start + batch_size], max_new_tokens=1)))
    mass = np.concatenate([part for part, _ in parts], axis=1)  # (layers, N, K)
    uniform = float(np.concatenate([share for _, share in parts]).mean())
    return [LayerAttention(float(layer.sum(axis=1).mean()), uniform, layer.mean(axis=0).tolist()) for layer in mass]


@contextmanager
def eager_attention(model: StormForConditionalGeneration) -> Iterator[None]:
    """Let the backbone compute attention in the one way that returns it, and put the old way back."""
    decoder: Any = model.get_decoder()
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)


def _attend(shared: SharedPrompts) -> tuple[np.ndarray, np.ndarray]:
    """Attention on each latent (layers, B, K), and the share of the tokens that the latents are, (B,)."""
    attentions = [layer for layer in shared.run_block(output_attentions=True).attentions or () if layer is not None]
    if not attentions:
        raise BackboneError("This backbone returns no attention: its layers do not attend, or do so in another way.")
    last = torch.stack([layer[:, :, -1].float().mean(dim=1) for layer in attentions])  # (layers, B, S)
    on_latents = last[..., shared.start : shared.start + shared.num_latents]
    num_tokens = shared.inputs["attention_mask"].sum(dim=1)
    return on_latents.cpu().numpy(), (shared.num_latents / num_tokens).cpu().numpy()
