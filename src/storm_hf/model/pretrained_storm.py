"""Shared part of the body and the model with its head: loading, saving, initialisation, and the way to the backbone's own parts."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_storm import StormConfig
from .projector_storm import UnitGainLinear


class StormPreTrainedModel(PreTrainedModel):
    """A model around a whole video-language model, its `backbone`."""

    config: StormConfig
    backbone: PreTrainedModel
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["cache"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Containers never get here: without parameters of their own they count as initialised in code outside transformers.
        if isinstance(module, UnitGainLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's token embedding."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's token embedding."""
        self.backbone.set_input_embeddings(value)

    def get_decoder(self) -> nn.Module:
        """The backbone's language model."""
        return self.backbone.get_decoder()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize as the backbone does, which may have further embeddings of the same tokens."""
        return self.backbone.resize_token_embeddings(*args, **kwargs)

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the embedded tokens, as gradient checkpointing asks for.

        transformers does the same to what goes into the vision tower, which would then keep its activations and be gone
        back through although it is frozen. A tower that trains has gradients of its own.
        """
        self.disable_input_require_grads()
        hook = self.get_input_embeddings().register_forward_hook(_require_gradient)
        self._require_grads_hook, self._require_grads_hooks = hook, [hook]

    def save_pretrained(
        self, save_directory: str, *args: Any, save_original_format: bool = False, **kwargs: Any
    ) -> None:
        """Save weights, config and code.

        Keys are written as this class names them. In a backbone's original format, `Trainer` would resume without most
        weights of Qwen2.5-VL, LLaVA-OneVision and InternVL.
        """
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)


def _require_gradient(module: nn.Module, args: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)
