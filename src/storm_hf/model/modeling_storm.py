"""STORM: a bounded rollout of latent tokens inside any transformers video-language model (arXiv 2605.26014).

The body thinks, the backbone's own head answers. The other files of a checkpoint's code are its parts: `body_storm` for the
forward pass, `rollout_storm` for the loop, `generation_storm` for `generate`, `backbone_storm` for `from_backbone`.

Axes: B batch, S sequence, K latent steps, D hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .backbone_storm import FromBackboneMixin
from .body_storm import StormModel
from .configuration_storm import StormConfig
from .features_storm import flatten_features
from .generation_storm import StormGenerationMixin
from .gradient_storm import RolloutGradient
from .head_storm import load_balancing_loss, name_experts, scale_and_cap, scale_of_settings
from .pretrained_storm import StormPreTrainedModel
from .rollout_storm import LatentIntervention


@dataclass
class StormCausalLMOutput(ModelOutput):
    """Output of the model: loss, logits (B, S, V), and the model's own latents (B, K, D), in target space."""

    loss: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    router_logits: tuple[torch.Tensor, ...] | None = None
    latents: torch.Tensor | None = None


class StormForConditionalGeneration(StormPreTrainedModel, FromBackboneMixin, StormGenerationMixin):
    """A video-language model that thinks in K latent steps and then answers."""

    accepts_loss_kwargs = True  # the loss is divided by `num_items_in_batch` of the whole accumulated batch

    def __init__(self, config: StormConfig) -> None:
        super().__init__(config)
        self.model = StormModel(config)
        name_experts(config.get_text_config())
        self.post_init()

    @property
    def backbone(self) -> PreTrainedModel:
        """The wrapped video-language model, whole, with its head."""
        return self.model.backbone

    @property
    def lm_head(self) -> nn.Module:
        """The backbone's language-model head."""
        return self.get_output_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The backbone's language-model head."""
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's language-model head."""
        self.backbone.set_output_embeddings(value)

    @torch.no_grad()
    def encode_video(self, **vision_inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode videos once, for batches that carry features instead of pixels.

        Args:
            vision_inputs (`torch.Tensor`):
                Arguments of the backbone's `get_video_features`, for example `pixel_values_videos` and `video_grid_thw`.

        Returns:
            `dict`: `video_features` of shape `(num_tokens, hidden_size)` and, if the backbone injects deep features,
            `video_deepstack` of shape `(num_layers, num_tokens, hidden_size)`.
        """
        return flatten_features(self.model.get_video_features(**vision_inputs, return_dict=True))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project hidden states with the backbone's head, its scaling and its soft cap."""
        text_config, scale = self.config.get_text_config(), self.config.logits_scale
        logits = self.get_output_embeddings()(hidden_states)
        return scale_and_cap(logits, scale_of_settings(text_config) if scale is None else scale, text_config)

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")  # the name before transformers 5.24
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, ModelOutput] | None = None,
        video_features: torch.Tensor | None = None,
        video_deepstack: torch.Tensor | None = None,
        forced_latents: torch.Tensor | None = None,
        latent_intervention: LatentIntervention | None = None,
        rollout_gradient: RolloutGradient | None = None,
        latent_bottleneck: torch.Tensor | bool | None = None,
        clip_token_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> StormCausalLMOutput:
        """Think where the prompt has a latent block, and predict the next tokens.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Tokens of the prompt with its latent block, and in training of the answer.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 where a token is, 0 where padding is.
            position_ids (`torch.LongTensor`, *optional*):
                By default what the backbone prepares for the whole sequence.
            cache ([`~transformers.Cache`], *optional*):
                Cache to go on from.
            inputs_embeds (`torch.Tensor`, *optional*):
                Instead of `input_ids`, for prompts without latents.
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                -100 where nothing is predicted, as on the latent block. In training mode only supervised positions are
                projected, and `logits` is `None`.
            use_cache (`bool`, *optional*):
                Whether to return the cache.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to `0`):
                Number of last positions to project; `0` means all.
            mm_encoder_outputs (`dict`, *optional*):
                Encoded images and videos, instead of pixels.
            video_features (`torch.Tensor` of shape `(num_tokens, hidden_size)`, *optional*):
                Encoded videos as a flat tensor, with `video_grid_thw`; see `encode_video`.
            video_deepstack (`torch.Tensor` of shape `(num_layers, num_tokens, hidden_size)`, *optional*):
                Their deepstack features.
            forced_latents (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`, *optional*):
                Teacher forcing: what each slot is fed, in target space, instead of the model's own latents.
            latent_intervention (`Callable[[int, torch.Tensor], torch.Tensor]`, *optional*):
                Replaces the latent (batch_size, hidden_size) of a step before it is fed.
            rollout_gradient ([`RolloutGradient`], *optional*):
                Cheaper, inexact ways back through the rollout. By default the gradient is exact.
            latent_bottleneck (`bool` or `torch.BoolTensor` of shape `(batch_size,)`, *optional*):
                Whether a row's answer learns of the clip through the content of its latents alone.
            clip_token_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
                True where the processor wrote something for a clip, for the bottleneck; see `ClipFreeRows`.
            kwargs:
                Passed to the backbone: pixels, grids, token types.

        Returns:
            [`StormCausalLMOutput`]: `latents` are the model's own, of shape `(batch_size, num_latents, hidden_size)`, also
            under teacher forcing and intervention; `None` without a latent block.

        Raises:
            LatentLayoutError: If the latent block is broken, or there is none for an argument that acts on latents.
            LatentShapeError: If `forced_latents` does not fit it.
            CacheError: If there is a cache and a `latent_bottleneck`.
        """
        loss_kwargs = {name: kwargs.pop(name) for name in ("num_items_in_batch", "shift_labels") if name in kwargs}
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            video_features=video_features,
            video_deepstack=video_deepstack,
            forced_latents=forced_latents,
            latent_intervention=latent_intervention,
            rollout_gradient=rollout_gradient,
            latent_bottleneck=latent_bottleneck,
            clip_token_mask=clip_token_mask,
            **kwargs,
        )
        logits, loss = None, None
        if labels is not None:
            loss = self._supervised_loss(output.last_hidden_state, labels, **loss_kwargs)
        if labels is None or not self.training:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.compute_logits(output.last_hidden_state[:, keep])
        aux_loss = None
        if output.router_logits:
            text_config = self.config.get_text_config()
            aux_loss = load_balancing_loss(output.router_logits, text_config, attention_mask)
            if loss is not None:
                loss = loss + getattr(text_config, "router_aux_loss_coef", 0.0) * aux_loss.to(loss.device)
        return StormCausalLMOutput(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            cache=output.cache,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            router_logits=output.router_logits,
            latents=output.latents,
        )

    def _supervised_loss(
        self,
        hidden_states: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        shift_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Cross entropy over the supervised positions only; no other position is projected, and no latent token is predicted."""
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        for token_id in self.config.latent_block_ids:
            if token_id is not None:
                shift_labels = shift_labels.masked_fill(shift_labels == token_id, -100)
        is_supervised = shift_labels != -100  # (B, S)
        logits = self.compute_logits(hidden_states[is_supervised]).float()
        total = nn.functional.cross_entropy(logits, shift_labels[is_supervised], reduction="sum")
        return total / (is_supervised.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


__all__ = ["StormForConditionalGeneration", "StormModel", "StormPreTrainedModel"]
