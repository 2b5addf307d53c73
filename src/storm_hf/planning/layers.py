"""Memory of the layers, the head and the vision tower in one step, in bytes. Symbols as in `passes`."""

from dataclasses import dataclass

from storm_hf.planning.passes import (
    FLOAT32,
    Adapter,
    Arithmetic,
    Piece,
    activation_bytes,
    checkpointed_bytes,
    end_bytes,
    layer_bytes,
)
from storm_hf.planning.shape import DecoderShape


# Of `trl.kernels.chunked_logprob`: the head is applied in tiles.
HEAD_TILE = (4096, 32768)  # tokens, rows of the vocabulary


@dataclass(frozen=True)
class Layers:
    """The layers of a run: their sizes, and how they compute.

    Args:
        shape ([`DecoderShape`]):
            Sizes.
        numbers ([`Arithmetic`]):
            Number formats of the computation.
        adapter ([`Adapter`], *optional*):
            Adapter that trains in place of the weights.
        is_checkpointed (`bool`, *optional*, defaults to `False`):
            Whether they are computed once more in the backward pass.
        is_quantized (`bool`, *optional*, defaults to `False`):
            Whether their weights are held in 4 bits.
    """

    shape: DecoderShape
    numbers: Arithmetic
    adapter: Adapter | None = None
    is_checkpointed: bool = False
    is_quantized: bool = False

    def activations(self, pieces: list[Piece], num_tokens: int) -> int:
        """Bytes that are kept of a row of `num_tokens`."""
        ends = end_bytes(num_tokens, self.shape, self.numbers)
        if self.is_checkpointed:
            return checkpointed_bytes(pieces, self.shape, self.numbers) + ends
        return activation_bytes(pieces, self.shape, self.numbers, self.adapter) + ends

    def cache(self, pieces: list[Piece]) -> int:
        """Bytes of keys and values: those that chunks with a past read, or that are held to be replayed."""
        past_free = [Piece(piece.new, piece.new) for piece in pieces]
        return self.activations(pieces, 0) - self.activations(past_free, 0)

    def backward(self, pieces: list[Piece], num_tokens: int) -> tuple[int, int]:
        """Bytes per row that are still kept, and those of workspace, when their sum is largest in the backward pass.

        That is at the longest chunk. With checkpointing a rollout has released its later caches by then, but the
        gradient of keys and values is there; or else it is at the very beginning, when all caches are there and the last
        piece, repeated keys and their gradients included, is computed once more.
        """
        kept = self.activations(pieces, num_tokens)
        longest = max(pieces, key=lambda piece: piece.new)
        if not self.is_checkpointed or len(pieces) == 1:
            return kept, self.layer_workspace(longest)
        whole = Piece(pieces[-1].keys - 1, pieces[-1].keys)  # a piece with everything in its cache
        kept_later = self.activations([Piece(longest.new, longest.keys + 1)], num_tokens)
        cache_gradient = self.cache([whole])
        repeated = 4 * self.numbers.operands * self.shape.query_width * pieces[-1].keys
        moments = [
            (kept, cache_gradient + repeated + self.layer_workspace(pieces[-1])),
            (kept_later, cache_gradient + self.layer_workspace(longest)),
        ]
        return max(moments, key=sum)

    def weight_copies(self, pieces: list[Piece]) -> int:
        """Bytes of the matrices of all layers in 16 bits, where they are held in 32: c L (2 D (Q + V) + 3 D F).

        Trained ones are cast once. Frozen ones, under an adapter, once for each piece, unless its layers are checkpointed:
        load them in 16 bits.
        """
        if not self.numbers.casts:
            return 0
        times = 1 if self.adapter is None else 0 if self.is_checkpointed else len(pieces)
        return times * self.numbers.operands * self.shape.num_layers * self.shape.layer_matrices

    def layer_workspace(self, piece: Piece) -> int:
        """Bytes that the backward pass of a layer makes for each token of a piece.

        Gradients: 2 r D of the residual stream, c F of the perceptron, 4 F for the input of an adapter that is wider. With
        checkpointing the layer itself, `layer_bytes`.
        """
        shape, numbers = self.shape, self.numbers
        is_wider = self.adapter is not None and self.adapter.parameters > numbers.operands
        per_token = 2 * numbers.weights * shape.hidden_size
        per_token += (numbers.operands + (FLOAT32 if is_wider else 0)) * shape.intermediate_size
        per_token += layer_bytes(shape, numbers, self.adapter) if self.is_checkpointed else 0
        return piece.new * per_token

    @property
    def matrix_workspace(self) -> int:
        """Bytes that the backward pass of a layer makes for its matrices.

        The gradient of one, (c + t) D F, if it trains. With checkpointing all of the layer in 16 bits if they are cast. From
        4 bits one is unpacked at a time, c D F.
        """
        shape, operand = self.shape, self.numbers.operands
        matrix = shape.hidden_size * shape.intermediate_size
        used = (operand + self.numbers.weights) * matrix if self.adapter is None else 0
        used += operand * matrix if self.is_quantized else 0
        return used + (operand * shape.layer_matrices if self.is_checkpointed and self.numbers.casts else 0)


def logits_bytes(num_supervised: int, shape: DecoderShape, numbers: Arithmetic) -> int:
    """Bytes of the head's tile of logits, c x positions x rows of the vocabulary, and of its weights if they are cast.

    TRL's fused head makes at most 4096 x 32768 logits at a time and keeps none of them. Only supervised positions have any.
    """
    tokens, rows = min(num_supervised, HEAD_TILE[0]), min(shape.vocab_size, HEAD_TILE[1])
    cast = numbers.operands * rows * shape.hidden_size if numbers.casts else 0
    return numbers.operands * tokens * rows + cast


def head_gradient_bytes(shape: DecoderShape, weight_bytes: int, trains_head: bool, is_tied: bool) -> int:
    """Bytes of gradients of the head that are there twice for a moment.

    The head sums its gradient in float32, which is copied where weights have 16 bits; a tied one meets that of the embeddings.
    """
    matrix = shape.vocab_size * shape.hidden_size
    if not trains_head:
        return 0
    return (FLOAT32 * matrix if weight_bytes < FLOAT32 else 0) + (weight_bytes * matrix if is_tied else 0)


def vision_bytes(
    clip_patches: int, patch_pixels: int, hidden_size: int, intermediate_size: int, numbers: Arithmetic
) -> int:
    """Bytes that a frozen vision tower uses at a time, roughly (measured on tiny towers: within a fifth).

    For each patch the larger of two. Its pixels in 16 bits, once where they are cast and twice where the weights have 16 bits.
    Or, inside, three residual streams, 3 r D, with the larger of queries, keys and values, 3 c D, which are rotated in float32,
    16 D, and of a gated perceptron, 3 c F.
    """
    operand = numbers.operands
    embedding = 0 if operand == FLOAT32 else operand * patch_pixels * (1 if numbers.casts else 2)
    attention = (3 * operand + 4 * FLOAT32) * hidden_size
    inside = 3 * numbers.weights * hidden_size + max(attention, 3 * operand * intermediate_size)
    return clip_patches * max(embedding + numbers.weights * hidden_size, inside)
