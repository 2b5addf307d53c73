"""Passes through the language model of a training step, and what automatic differentiation keeps of them.

Symbols: L layers, D hidden size, F width of the perceptron, Q and V widths of queries and of keys (values), R rank of an
adapter, P prompt, K latent steps, A answer, S = P + K + A tokens; all for one row.
"""

from dataclasses import dataclass
from typing import Literal

from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.planning.shape import DecoderShape


FLOAT32 = 4
FLOAT16 = 2  # or bfloat16
NUM_MATRICES = 7  # of a layer: queries, keys, values, output, gate, up, down
Forcing = Literal["teacher", "rollout", "scheduled"]


@dataclass(frozen=True)
class Sequence:
    """Tokens of a row.

    Args:
        prompt (`int`):
            Video and question, with `<|latent_start|>`.
        latents (`int`):
            Number K of latent steps.
        answer (`int`):
            `<|latent_end|>` and the answer; the positions that are projected to the vocabulary.
    """

    prompt: int
    latents: int
    answer: int

    @property
    def total(self) -> int:
        """Length S."""
        return self.prompt + self.latents + self.answer


@dataclass(frozen=True)
class Piece:
    """A stretch of a sequence that passes through the layers at once.

    Args:
        new (`int`):
            Its tokens.
        keys (`int`):
            Tokens that they attend to: the cache and themselves.
    """

    new: int
    keys: int

    @property
    def has_past(self) -> bool:
        """True if there is a cache to read."""
        return self.keys > self.new


@dataclass(frozen=True)
class Arithmetic:
    """Number formats of a run.

    Args:
        weights (`int`):
            Bytes of a parameter, and of an element of the residual stream.
        operands (`int`):
            Bytes of what is multiplied: 2 under `bf16`, whatever the weights have.
    """

    weights: int = FLOAT32
    operands: int = FLOAT32

    @property
    def casts(self) -> bool:
        """True if automatic casting copies weights and inputs, as for float32 weights under `bf16`."""
        return self.weights > self.operands


@dataclass(frozen=True)
class Adapter:
    """Properties of LoRA that change the activations.

    Args:
        rank (`int`):
            Rank R.
        parameters (`int`):
            Bytes of a parameter of the adapter: PEFT keeps them in float32 beside 16-bit weights, except quantized ones.
        has_dropout (`bool`, *optional*, defaults to `False`):
            Whether its inputs are dropped at random, which keeps a mask of each.
    """

    rank: int
    parameters: int
    has_dropout: bool = False


def parallel_pass(tokens: Sequence) -> list[Piece]:
    """Stage I with teacher forcing, or no latents: everything at once."""
    return [Piece(tokens.total, tokens.total)]


def rollout_passes(tokens: Sequence, gradient: RolloutGradient) -> list[Piece]:
    """The prompt, K single-token steps, the rest: those of these pieces that have a gradient.

    `detach_prompt` leaves the first piece out, `truncate_steps` that and all but the last so many steps. `jacobi_sweeps` have
    K tokens each, and the latents then pass once more, with the answer.
    """
    prompt, num_latents = tokens.prompt, tokens.latents
    pieces = [Piece(prompt, prompt)] if gradient.reaches_prompt(num_latents) else []
    if gradient.jacobi_sweeps is not None:
        pieces += [Piece(num_latents, prompt + num_latents)] * gradient.jacobi_sweeps
        return [*pieces, Piece(num_latents + tokens.answer, tokens.total)]
    first = max(num_latents - (gradient.truncate_steps or num_latents), 0)
    pieces += [Piece(1, prompt + step + 1) for step in range(first, num_latents)]
    return [*pieces, Piece(tokens.answer, tokens.total)]


def layer_bytes(shape: DecoderShape, numbers: Arithmetic, adapter: Adapter | None = None) -> int:
    """Bytes that a layer keeps per token until the backward pass, without activation checkpointing.

    Each term is a tensor that an operation of the layer saves, r bytes in the residual stream and c in operands:

    - two root-mean-square norms: their input in float32, 2 x 4 D; if the norms train, what they scale, 2 r D;
    - inputs of the matrices: 2 c D, shared by queries, keys and values, and by gate and up; 5 c D where each is cast apart
      (weights in float32 under `bf16`; an adapter in float32), which copies that of the adapter's output matrix too, c Q;
    - attention: queries, output, keys, values, c (2 Q + 2 V), and the logarithm of a sum per head, 4 H. The output is the
      input of the output matrix. Scores are never kept: the kernel makes them again;
    - norms of queries and keys, where there are any: (4 + c) (Q + V);
    - perceptron: gate, its activation, up, their product: 4 c F;
    - LoRA: the R numbers in the middle of each of seven matrices, 7 c R; masks of dropout, 5 D + Q + F.

    Args:
        shape ([`DecoderShape`]):
            Sizes of the language model.
        numbers ([`Arithmetic`]):
            Number formats of the computation.
        adapter ([`Adapter`], *optional*):
            Adapter that trains in place of the weights.
    """
    width, queries, keys = shape.hidden_size, shape.query_width, shape.key_width
    operand, trains_norms = numbers.operands, adapter is None
    is_cast = numbers.casts or (adapter is not None and adapter.parameters > operand)
    kept = 2 * FLOAT32 * width + (2 * numbers.weights * width if trains_norms else 0)
    kept += (5 if is_cast else 2) * operand * width
    kept += operand * (2 * queries + 2 * keys) + FLOAT32 * shape.num_heads
    if shape.normalizes_queries:
        kept += (FLOAT32 + (operand if trains_norms else 0)) * (queries + keys)
    kept += 4 * operand * shape.intermediate_size
    if adapter is not None:
        kept += NUM_MATRICES * operand * adapter.rank + (operand * queries if is_cast else 0)
        kept += (5 * width + queries + shape.intermediate_size) if adapter.has_dropout else 0
    return kept


def activation_bytes(
    pieces: list[Piece], shape: DecoderShape, numbers: Arithmetic, adapter: Adapter | None = None
) -> int:
    """Bytes that the layers keep of a row, without activation checkpointing.

    L (n `layer_bytes` + cache) for each piece of n tokens. A piece with a past keeps the keys and values that it read, its own
    copy of the whole cache: 2 c V keys for a single token, and 2 c Q keys for several, since attention with a mask repeats
    keys for each head of the queries, with the mask, c n keys. This is what grows with K.
    """
    per_token = layer_bytes(shape, numbers, adapter)
    own_keys = 2 * numbers.operands * shape.key_width
    kept = 0
    for piece in pieces:
        kept += piece.new * per_token
        if piece.has_past:
            width = shape.key_width if piece.new == 1 else shape.query_width
            mask = piece.new if piece.new > 1 else 0
            kept += numbers.operands * piece.keys * (2 * width + mask) - piece.new * own_keys
    return shape.num_layers * kept


def checkpointed_bytes(pieces: list[Piece], shape: DecoderShape, numbers: Arithmetic) -> int:
    """Bytes that the layers keep of a row, with activation checkpointing: their inputs, and the caches that they will replay.

    L (r D + (r + c) V) for each token. Keys are rotated, and so kept, in the numbers of the residual stream. A piece of a rollout
    holds its own keys and values, and shares those before it; one parallel pass has no cache.
    """
    has_cache = any(piece.has_past for piece in pieces)
    key_bytes = (numbers.weights + numbers.operands) * shape.key_width if has_cache else 0
    return shape.num_layers * sum((numbers.weights * shape.hidden_size + key_bytes) * piece.new for piece in pieces)


def end_bytes(num_tokens: int, shape: DecoderShape, numbers: Arithmetic) -> int:
    """Bytes that are kept of a row around the layers, D (4 + 2 r) a token: the last norm, and the last hidden states."""
    return num_tokens * shape.hidden_size * (FLOAT32 + 2 * numbers.weights)
