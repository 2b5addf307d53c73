"""Floating-point operations of a training step, from parameters and tokens alone.

The count is of *model* FLOPs (PaLM, arXiv 2204.02311, appendix B): what the mathematics of a step needs. What is computed again,
by gradient checkpointing or in extra parallel sweeps, and what is spent on padding, does not count. A matrix of N parameters
costs, per token, 2 N to apply, 2 N for the gradient of its input and 2 N for its own gradient.

The trainers' `model_flops_utilisation` counts here. `storm plan` counts the operations of a step as they run, with the same
result for dense models.
"""

from dataclasses import dataclass, fields

from accelerate.utils import is_peft_model
from peft import PeftModel
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


_MERGER_NAMES = (
    "merger",
    "multi_modal_projector",
    "connector",
)  # what backbones call the step from tower to language model


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part of a model.

    Args:
        total (`int`, *optional*, defaults to `0`):
            All parameters, trainable or not, adapters included.
        trainable (`int`, *optional*, defaults to `0`):
            Those that have a gradient.
    """

    total: int = 0
    trainable: int = 0

    def __add__(self, other: "PartCount") -> "PartCount":
        return PartCount(self.total + other.total, self.trainable + other.trainable)


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a STORM by part. Every parameter belongs to exactly one part.

    Args:
        vision ([`PartCount`]):
            The vision tower.
        merger ([`PartCount`]):
            Layers that map its output to embeddings of the language model.
        decoder ([`PartCount`]):
            The layers of the language model, without its token embeddings.
        embeddings ([`PartCount`]):
            The token embeddings, looked up and so free of FLOPs.
        head ([`PartCount`]):
            The language-model head. A head that is tied to the embeddings has no parameters of its own.
        projector ([`PartCount`]):
            The latent projector.
        is_head_tied (`bool`, *optional*, defaults to `False`):
            Whether the head is the matrix of the embeddings.
    """

    vision: PartCount = PartCount()
    merger: PartCount = PartCount()
    decoder: PartCount = PartCount()
    embeddings: PartCount = PartCount()
    head: PartCount = PartCount()
    projector: PartCount = PartCount()
    is_head_tied: bool = False

    def by_part(self) -> dict[str, PartCount]:
        """Parts by name, in the order in which data passes through them."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "is_head_tied"}

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(part.total for part in self.by_part().values())

    @property
    def trainable(self) -> int:
        """All parameters that have a gradient."""
        return sum(part.trainable for part in self.by_part().values())


@dataclass(frozen=True)
class TokenCounts:
    """Sizes of the inputs of a step, padding excluded. Counts of batches add up with `+`.

    Args:
        decoder (`int`, *optional*, defaults to `0`):
            Positions that pass through the language model: prompt, video, latents and answer. A latent is a position like
            any other, whether it is rolled out or given.
        decoder_pairs (`int`, *optional*, defaults to `0`):
            Sum of squared sequence lengths: pairs of a query and a key. As in PaLM's formula, the causal half is not
            taken off.
        detached (`int`, *optional*, defaults to `0`):
            Number of `decoder` tokens without a backward pass: the prompts, under `detach_prompt`.
        detached_pairs (`int`, *optional*, defaults to `0`):
            Number of `decoder_pairs` without one.
        supervised (`int`, *optional*, defaults to `0`):
            Positions that are projected to the vocabulary.
        latents (`int`, *optional*, defaults to `0`):
            Latents that the projector makes.
        patches (`int`, *optional*, defaults to `0`):
            Patches that pass through the vision tower; 0 where its features are cached.
        patch_pairs (`int`, *optional*, defaults to `0`):
            Sum of squared patches per frame.
        video (`int`, *optional*, defaults to `0`):
            Video tokens that come out of the merger; 0 where they are cached.
    """

    decoder: int = 0
    decoder_pairs: int = 0
    detached: int = 0
    detached_pairs: int = 0
    supervised: int = 0
    latents: int = 0
    patches: int = 0
    patch_pairs: int = 0
    video: int = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class AttentionShape:
    """Size of the attention, whose cost grows with the pairs of positions.

    Args:
        decoder_layers (`int`):
            Layers of the language model with full attention. The state of a linear-attention layer is left out.
        decoder_width (`int`):
            Heads times their size in the language model.
        vision_layers (`int`, *optional*, defaults to `0`):
            Layers of the vision tower that look at whole frames. Windows, of 64 patches in Qwen2.5-VL, are left out.
        vision_width (`int`, *optional*, defaults to `0`):
            Heads times their size in the vision tower.
    """

    decoder_layers: int
    decoder_width: int
    vision_layers: int = 0
    vision_width: int = 0


def training_flops(parameters: ParameterCounts, tokens: TokenCounts, attention: AttentionShape) -> float:
    """Model FLOPs of a forward and a backward pass of a dense model (`is_dense`).

    Per token of the language model: 2 N forward, 2 N for the gradients of its inputs, and 2 N_trainable for those of its
    weights, which is the usual 6 N when everything trains and 4 N under a small adapter. Attention: 4 x width x pairs per
    layer forward and twice that backward, 12 in all (PaLM's 12 L H Q T). The head: the same per supervised position. The
    vision tower and its merger: 2 N per patch and per video token when frozen, 6 N when trained.

    Args:
        parameters ([`ParameterCounts`]):
            Of the model, or of the backbone's configuration.
        tokens ([`TokenCounts`]):
            Tokens of the step, over all processes or of one, as the result is wanted.
        attention ([`AttentionShape`]):
            See `attention_shape`.

    Returns:
        `float`: FLOPs; a multiplication and an addition are two.
    """
    decoder, head = parameters.decoder, _head(parameters)
    flops = 2 * tokens.decoder * decoder.total
    flops += 2 * (tokens.decoder - tokens.detached) * (decoder.total + decoder.trainable)
    pairs = 3 * tokens.decoder_pairs - 2 * tokens.detached_pairs
    flops += 4 * attention.decoder_layers * attention.decoder_width * pairs
    flops += tokens.supervised * (4 * head.total + 2 * head.trainable)
    flops += tokens.latents * (4 * parameters.projector.total + 2 * parameters.projector.trainable)
    return float(flops + _vision_flops(parameters, tokens, attention))


def _vision_flops(parameters: ParameterCounts, tokens: TokenCounts, attention: AttentionShape) -> int:
    vision, merger = parameters.vision, parameters.merger
    is_trained = vision.trainable > 0
    flops = tokens.patches * (2 * vision.total + 2 * is_trained * vision.total + 2 * vision.trainable)
    flops += 4 * attention.vision_layers * attention.vision_width * tokens.patch_pairs * (3 if is_trained else 1)
    return flops + tokens.video * (2 * merger.total + 2 * is_trained * merger.total + 2 * merger.trainable)


def _head(parameters: ParameterCounts) -> PartCount:
    return parameters.embeddings if parameters.is_head_tied else parameters.head


def count_parameters(model: PreTrainedModel | PeftModel) -> ParameterCounts:
    """Count a STORM's parameters by part, on any device, also on `meta`, quantized, partitioned, or under an adapter.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model, or the adapter around it.
    """
    storm = model.get_base_model() if is_peft_model(model) else model
    parts = {
        "embeddings": storm.get_input_embeddings(),
        "head": storm.get_output_embeddings(),
        "decoder": storm.get_decoder(),
        "projector": storm.model.latent_projector,
    }
    counts: dict[str, PartCount] = {}
    part_of = {id(parameter): name for name, part in reversed(parts.items()) for parameter in part.parameters()}
    for name, parameter in storm.named_parameters():
        if ".original_module." in name:  # what an adapter keeps beside the copy that it trains
            continue
        is_merger = any(word in name for word in _MERGER_NAMES)
        part = part_of.get(id(parameter), "merger" if is_merger else "vision")
        size = _size(parameter)
        counts[part] = counts.get(part, PartCount()) + PartCount(size, size if parameter.requires_grad else 0)
    is_tied = parts["head"].weight is parts["embeddings"].weight
    return ParameterCounts(**counts, is_head_tied=is_tied)


def _size(parameter: nn.Parameter) -> int:
    """Elements of a whole parameter: ZeRO-3 holds a slice of it, four bits of two elements share a byte."""
    size = getattr(parameter, "ds_numel", None) or parameter.numel()
    if type(parameter).__name__ != "Params4bit":
        return size
    return size * 2 * parameter.element_size() if getattr(parameter, "bnb_quantized", False) else size


def is_dense(config: PreTrainedConfig) -> bool:
    """Check that every token passes through every weight; in a mixture of experts it does not, and the formula does not hold."""
    text = getattr(config, "vlm_config", config).get_text_config()
    return not any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def attention_shape(config: PreTrainedConfig) -> AttentionShape:
    """Read the size of the attention from a STORM's or a backbone's configuration.

    Args:
        config ([`StormConfig`] or [`~transformers.PreTrainedConfig`]):
            With a text and a vision part.
    """
    vlm_config = getattr(config, "vlm_config", config)
    text, vision = vlm_config.get_text_config(), vlm_config.vision_config
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    full = getattr(vision, "fullatt_block_indexes", None)
    depth = getattr(vision, "depth", None) or getattr(vision, "num_hidden_layers", None) or 0
    return AttentionShape(
        decoder_layers=sum(kind != "linear_attention" for kind in kinds),
        decoder_width=text.num_attention_heads * head_size,
        vision_layers=depth if full is None else len(full),
        vision_width=getattr(vision, "hidden_size", 0),  # some backbones read patches without a tower
    )
