"""Sizes of a language model, read from its configuration."""

from dataclasses import dataclass
from typing import Any

from storm_hf.errors import BackboneError
from storm_hf.training.flops import is_dense


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a language model whose layers are attention and a gated multilayer perceptron, as those of Qwen and Llama.

    Args:
        hidden_size (`int`):
            Width D of the residual stream, and of a latent.
        num_layers (`int`):
            Number L of layers.
        num_heads (`int`):
            Heads of the queries.
        query_width (`int`):
            Heads of the queries times their size.
        key_width (`int`):
            Heads of the keys times their size; as much again for the values.
        intermediate_size (`int`):
            Width of the perceptron.
        vocab_size (`int`):
            Rows of the token embedding.
        normalizes_queries (`bool`):
            Whether queries and keys are normalised head by head, as in Qwen3.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    query_width: int
    key_width: int
    intermediate_size: int
    vocab_size: int
    normalizes_queries: bool

    @classmethod
    def of(cls, config: Any) -> "DecoderShape":
        """Read the sizes off a backbone's configuration.

        Raises:
            BackboneError: If the layers are of another kind, whose activations the formulas do not know.
        """
        text = config.get_text_config()
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or not is_dense(config):
            raise BackboneError(
                f"`storm plan` knows layers with full attention and one gated perceptron, but those of {config.model_type} are "
                f"{'mixtures of experts' if not is_dense(config) else ' and '.join(sorted(kinds))}. Measure a short run "
                "instead: the trainers log `peak_memory_mib`."
            )
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            hidden_size=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_heads=text.num_attention_heads,
            query_width=text.num_attention_heads * head_size,
            key_width=text.num_key_value_heads * head_size,
            intermediate_size=text.intermediate_size,
            vocab_size=text.vocab_size,
            normalizes_queries="qwen3" in text.model_type,
        )

    @property
    def layer_matrices(self) -> int:
        """Parameters of the seven matrices of a layer: queries, keys, values, output, gate, up, down."""
        attention = 2 * self.hidden_size * (self.query_width + self.key_width)
        return attention + 3 * self.hidden_size * self.intermediate_size
