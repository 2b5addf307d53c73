"""The backbone's head on hidden states of its body: logits, and what its experts cost.

A backbone's own forward pass runs its body and its head at once, and a thought needs the two apart.

Axes: B batch, S sequence, D hidden size, V vocabulary.
"""

import torch
from transformers import PreTrainedConfig
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func


_MULTIPLIERS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
_DIVISOR = "logits_scaling"  # but HyperCLOVA X multiplies by it
_SOFT_CAP = "final_logit_softcapping"


def scale_of_settings(text_config: PreTrainedConfig) -> float:
    """The factor of a head as the names of its settings suggest it."""
    scale = 1.0
    for name in _MULTIPLIERS:
        if (factor := getattr(text_config, name, None)) is not None:
            scale *= factor
    if (divisor := getattr(text_config, _DIVISOR, None)) is not None:
        scale /= divisor
    return scale


def scale_and_cap(logits: torch.Tensor, scale: float, text_config: PreTrainedConfig) -> torch.Tensor:
    """Scale what a head gives, and cap it softly where the backbone does, as in Gemma."""
    if scale != 1.0:
        logits = logits * scale
    if (cap := getattr(text_config, _SOFT_CAP, None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def possible_scales(text_config: PreTrainedConfig) -> list[float]:
    """Factors that a head may have, the likely one first: its settings mean one thing here and another there."""
    scales = [scale_of_settings(text_config), 1.0]
    for name in (*_MULTIPLIERS, _DIVISOR):
        if value := getattr(text_config, name, None):
            scales += [value, 1 / value]
    return scales


def name_experts(text_config: PreTrainedConfig) -> None:
    """Give the number of experts the name by which TRL's auxiliary loss asks for it, where a backbone has another one."""
    if hasattr(text_config, "router_aux_loss_coef") and not hasattr(text_config, "num_experts"):
        for name in ("num_local_experts", "n_routed_experts"):
            if (number := getattr(text_config, name, None)) is not None:
                text_config.num_experts = number
                return


def load_balancing_loss(
    router_logits: tuple[torch.Tensor, ...], text_config: PreTrainedConfig, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """Auxiliary loss of a backbone with experts, before its coefficient.

    Args:
        router_logits (`tuple[torch.Tensor, ...]`):
            Of every layer with experts, each of shape `(batch_size * sequence_length, num_experts)`.
        text_config ([`PreTrainedConfig`]):
            Says how many experts a token has.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 where a token is.
    """
    return load_balancing_loss_func(
        router_logits, router_logits[0].shape[-1], text_config.num_experts_per_tok, attention_mask
    )
