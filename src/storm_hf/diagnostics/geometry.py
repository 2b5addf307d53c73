"""Measures of the latents: geometry, linear probes of the state, and attention of the answer to them.

Latents that hardly depend on the clip cannot carry an answer, however well they are aligned.

A probe that reads a state shows that the latent holds it, not that the answer uses it; the interventions show that.

Attention is not use: a model can look without heeding, which the interventions tell apart.

Axes: N questions, B batch, K latent steps, D hidden size, C states, H heads, S sequence.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from storm_hf.diagnostics.replay import SharedPrompts
from storm_hf.errors import BackboneError
from storm_hf.evaluation.bootstrap import Interval, share_interval
from storm_hf.evaluation.thought_gallery import unit_vectors
from storm_hf.inputs.prompts import PromptEncoder, Row
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.target_trajectory.rank import ridge_weights


_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class StepGeometry:
    """One latent step over many clips.

    Args:
        pair_cosine (`float`):
            Mean cosine between the latents of two clips, -1 to 1. Near 1 they hardly depend on the clip.
        effective_rank (`float`):
            Number of directions they fill, 1 to `min(num_questions - 1, hidden_size)`; see [`effective_rank`].
    """

    pair_cosine: float
    effective_rank: float


@dataclass(frozen=True)
class StepDrift:
    """Drift of the model's own rollout from the one that is fed the true thoughts.

    Args:
        direction (`float`):
            Mean cosine between the latent of the free rollout and the one after true thoughts; 1 is no drift.
        size (`float`):
            Mean ratio of their lengths, free over fed; 1 is no drift.
        cosine_free (`float`):
            Mean cosine of the free latent to its true thought.
        cosine_fed (`float`):
            Mean cosine of the latent after true thoughts to its true thought.
        cosine_others (`float`):
            Mean cosine of the free latent to the thoughts of other clips at this step: a cosine means nothing without it.
    """

    direction: float
    size: float
    cosine_free: float
    cosine_fed: float
    cosine_others: float


@dataclass(frozen=True)
class StepRetrieval:
    """Retrieval of a latent's own thought among those of all clips at the same step.

    Args:
        own (`float`):
            Share of latents whose nearest thought, by cosine, is their own, and not another clip's just like it.
        chance (`float`):
            Accuracy of guessing.
        gallery_size (`int`):
            Thoughts that are searched.
        state (`float`, *optional*):
            Share whose nearest thought of *another* clip shows the true state; None where states are not known.
        state_chance (`float`, *optional*):
            Accuracy of a random thought of another clip.
    """

    own: float
    chance: float
    gallery_size: int
    state: float | None = None
    state_chance: float | None = None


def describe_geometry(latents: np.ndarray) -> list[StepGeometry]:
    """Describe each step of latents (N, K, D); needs two questions."""
    return [StepGeometry(pair_cosine(step), effective_rank(step)) for step in np.moveaxis(latents, 1, 0)]


def pair_cosine(vectors: np.ndarray) -> float:
    """Mean cosine between two different vectors of some, (N, D)."""
    count = len(vectors)
    total = unit_vectors(vectors).astype(np.float64).sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def effective_rank(vectors: np.ndarray) -> float:
    """Number of directions that vectors (N, D) fill around their mean: e to the entropy of the singular values' shares.

    Roy and Vetterli, "The effective rank" (2007). 1 for vectors on a line, D for a ball; 1 too if all are the same.
    """
    sizes = np.linalg.svd(vectors.astype(np.float64) - vectors.mean(axis=0), compute_uv=False)
    if not sizes.sum():
        return 1.0
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def describe_drift(free: np.ndarray, fed: np.ndarray, targets: np.ndarray) -> list[StepDrift]:
    """Compare two rollouts step by step.

    Args:
        free (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            Latents of the model's own rollout.
        fed (`np.ndarray` of the same shape):
            Latents of the model at each step after the true thoughts of the steps before it.
        targets (`np.ndarray` of the same shape):
            The true thoughts.
    """
    size = np.linalg.norm(free, axis=-1) / np.maximum(np.linalg.norm(fed, axis=-1), 1e-12)  # (N, K)
    others = [_cosine_to_others(free[:, step], targets[:, step]) for step in range(free.shape[1])]
    measures = (_cosine(free, fed), size.mean(axis=0), _cosine(free, targets), _cosine(fed, targets), others)
    return [StepDrift(*map(float, step)) for step in zip(*measures, strict=True)]


def describe_retrieval(
    latents: np.ndarray, targets: np.ndarray, states: np.ndarray | None = None
) -> list[StepRetrieval]:
    """Look up each latent among the thoughts of its step; shapes (N, K, D), states (N, K)."""
    return [
        _retrieve(latents[:, step], targets[:, step], None if states is None else states[:, step])
        for step in range(latents.shape[1])
    ]


def _retrieve(latents: np.ndarray, targets: np.ndarray, states: np.ndarray | None) -> StepRetrieval:
    count = len(latents)
    gallery = unit_vectors(targets)
    is_own, is_state = [], []
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, count))
        cosine = unit_vectors(latents[rows]) @ gallery.T
        own = cosine[np.arange(len(rows)), rows].copy()
        cosine[np.arange(len(rows)), rows] = -np.inf
        nearest = cosine.argmax(axis=1)
        is_own.append(own > cosine.max(axis=1))
        if states is not None:
            is_state.append(states[nearest] == states[rows])
    found = float(np.concatenate(is_own).mean())
    if states is None:
        return StepRetrieval(found, 1 / count, count)
    _, counts = np.unique(states, return_counts=True)
    chance = float((counts * (counts - 1)).sum() / (count * (count - 1)))
    return StepRetrieval(found, 1 / count, count, float(np.concatenate(is_state).mean()), chance)


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean cosine over questions, one per step, (K,)."""
    return (unit_vectors(left) * unit_vectors(right)).sum(axis=-1).mean(axis=0)


def _cosine_to_others(latents: np.ndarray, targets: np.ndarray) -> float:
    left, right = unit_vectors(latents).astype(np.float64), unit_vectors(targets).astype(np.float64)
    count = len(left)
    return float((left.sum(axis=0) @ right.sum(axis=0) - (left * right).sum()) / (count * (count - 1)))


_TRAIN_SHARE = 0.7
_RIDGE = 1e-2  # per question, on latents of unit variance


@dataclass(frozen=True)
class StepProbe:
    """Accuracy of a linear probe on the latents of one step.

    Args:
        accuracy ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Share of held-out clips whose state it names.
        chance (`float`):
            Accuracy on the held-out clips of the most frequent state of the fitted ones.
        num_held_out (`int`):
            Clips that it was not fitted on.
    """

    accuracy: Interval
    chance: float
    num_held_out: int


def probe_states(latents: np.ndarray, states: np.ndarray, clips: list[str], seed: int = 0) -> list[StepProbe]:
    """Fit a ridge regression from the latents of each step to its state, and test it on clips that it has not seen.

    Args:
        latents (`np.ndarray` of shape `(num_questions, num_latents, hidden_size)`):
            The model's own latents.
        states (`np.ndarray` of shape `(num_questions, num_latents)`):
            State after each step.
        clips (`list[str]`):
            Clip of each question; all questions about a clip lie on the same side.
        seed (`int`, *optional*, defaults to `0`):
            Of the split.

    Returns:
        `list[StepProbe]`: One per step. Empty if there are fewer than ten clips.
    """
    names = sorted(set(clips))
    if len(names) < 10:
        return []
    drawn = np.random.default_rng(seed).permutation(len(names))[: int(_TRAIN_SHARE * len(names))]
    fitted_clips = {names[index] for index in drawn}
    is_fitted = np.array([clip in fitted_clips for clip in clips])
    held_out = [clip for clip in clips if clip not in fitted_clips]
    return [_probe(latents[:, step], states[:, step], is_fitted, held_out) for step in range(latents.shape[1])]


def _probe(latents: np.ndarray, states: np.ndarray, is_fitted: np.ndarray, held_out: list[str]) -> StepProbe:
    names, codes = np.unique(states, return_inverse=True)
    inputs = torch.from_numpy(latents).double()
    inputs = inputs - inputs[is_fitted].mean(dim=0)
    inputs = inputs / inputs[is_fitted].pow(2).mean(dim=0).sqrt().clamp(min=1e-6)
    labels = torch.nn.functional.one_hot(torch.from_numpy(codes), len(names)).double()  # (N, C)
    frequency = labels[is_fitted].mean(dim=0)
    scores = inputs[~is_fitted] @ ridge_weights(inputs[is_fitted], labels[is_fitted] - frequency, _RIDGE) + frequency
    truth = torch.from_numpy(codes[~is_fitted])
    is_right = (scores.argmax(dim=1) == truth).numpy()
    chance = float((truth == frequency.argmax()).double().mean())
    return StepProbe(share_interval(is_right, clusters=held_out, num_resamples=2000), chance, len(truth))


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
        prompts ([`~storm_hf.inputs.prompts.PromptEncoder`]):
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
