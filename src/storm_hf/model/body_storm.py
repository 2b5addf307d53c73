"""The body: where the prompt has a latent block, a rollout; everywhere else the backbone as it is.

The chat template writes `<|latent_start|> <|latent|> x K <|latent_end|>` after the assistant header. `StormModel.forward` runs
the prompt up to the start token, then K single-token steps that feed the projected last hidden state back as the next input
embedding, then the rest, all in one key-value cache. With `forced_latents` the latents are given (teacher forcing) and one
parallel pass does it.

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .attention_storm import check_layers, hide_thought, hides_thought
from .backbone_storm import build_backbone
from .bottleneck_storm import answer_without_clip
from .configuration_storm import StormConfig
from .features_storm import unflatten_features
from .gradient_storm import RolloutGradient
from .layout_storm import find_latent_block, refuse_embedded_block, refuse_without_block
from .pretrained_storm import StormPreTrainedModel
from .projector_storm import LatentProjector
from .rollout_storm import LatentIntervention
from .thought_storm import StormModelOutput, Thought, keep_state


class StormModel(StormPreTrainedModel):
    """The body: a whole backbone and a latent projector. `forward` does the rollout."""

    def __init__(self, config: StormConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config)
        if config.latent_attention == "step":
            check_layers(self.get_decoder())
        self.latent_projector = LatentProjector(config)
        self.post_init()

    def get_output_embeddings(self) -> None:
        """The body has no head."""
        return None

    # Properties, not methods: `generate` inspects their signatures, and some backbones have only one of the two.

    @property
    def get_image_features(self) -> Any:
        """The backbone's image encoder."""
        return self.backbone.get_image_features

    @property
    def get_video_features(self) -> Any:
        """The backbone's video encoder."""
        return self.backbone.get_video_features

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")  # the name before transformers 5.24
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, ModelOutput] | None = None,
        video_features: torch.Tensor | None = None,
        video_deepstack: torch.Tensor | None = None,
        forced_latents: torch.Tensor | None = None,
        latent_intervention: LatentIntervention | None = None,
        rollout_gradient: RolloutGradient | None = None,
        latent_bottleneck: torch.Tensor | bool | None = None,
        clip_token_mask: torch.Tensor | None = None,
        states_to_keep: int = 0,
        **kwargs: Any,
    ) -> StormModelOutput:
        """Run the backbone, thinking where the prompt has a latent block. Arguments as in the model with its head.

        With `states_to_keep`, only so many of the last hidden states are returned, for a head that needs no others; `0`
        means all.
        """
        inputs = {name: value for name, value in kwargs.items() if value is not None}
        if video_features is not None:
            dtype: torch.dtype = self.get_input_embeddings().weight.dtype  # type: ignore[assignment]
            inputs["mm_encoder_outputs"] = unflatten_features(
                video_features, inputs.get("video_grid_thw"), video_deepstack, dtype=dtype
            )
        elif mm_encoder_outputs:
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        block = None
        if input_ids is not None and input_ids.shape[1] > 1:  # a decoding step never looks for a block
            block = find_latent_block(input_ids, self.config, is_chunk=cache is not None)
        if block is None or input_ids is None:
            if inputs_embeds is not None and input_ids is None:
                refuse_embedded_block(inputs_embeds, self.get_input_embeddings(), self.config)
            if cache is None:  # with one, the block may have come in an earlier piece
                refuse_without_block(
                    forced_latents=forced_latents,
                    latent_intervention=latent_intervention,
                    rollout_gradient=None if rollout_gradient == RolloutGradient() else rollout_gradient,
                )
            refuse_without_block(latent_bottleneck=latent_bottleneck if _is_wanted(latent_bottleneck) else None)
            output = self._forward_without_latents(
                input_ids, attention_mask, position_ids, cache, inputs_embeds, use_cache, inputs
            )
        else:
            if position_ids is None:
                position_ids = self._positions(input_ids, attention_mask, cache, inputs)
            thought = Thought(self, block, cache, forced_latents, latent_intervention, rollout_gradient)
            if latent_bottleneck is None or latent_bottleneck is False:
                output = thought(input_ids, attention_mask, position_ids, use_cache, inputs)
            else:
                output = answer_without_clip(
                    thought, latent_bottleneck, input_ids, attention_mask, position_ids, inputs, clip_token_mask
                )
        if states_to_keep and output.last_hidden_state is not None:
            output.last_hidden_state = output.last_hidden_state[:, -states_to_keep:]
        return output

    def _forward_without_latents(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        cache: Cache | None,
        inputs_embeds: torch.Tensor | None,
        use_cache: bool | None,
        inputs: dict[str, Any],
    ) -> StormModelOutput:
        """The backbone itself, to the last bit; an answer does not see what its prompt's thought hides."""
        read = inputs_embeds if input_ids is None else input_ids
        if read is not None and hides_thought(cache):
            if position_ids is None:
                position_ids = self._positions(read, attention_mask, cache, inputs)
            attention_mask = hide_thought(attention_mask, cache, read.shape[1])
        output = self.backbone.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **inputs,
        )
        if output.last_hidden_state.shape[1] > 1 and not torch.is_grad_enabled():
            keep_state(output.cache, output.last_hidden_state)
        return StormModelOutput(
            last_hidden_state=output.last_hidden_state,
            cache=output.cache,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
            router_logits=output.get("router_logits"),
        )

    def _positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """Positions of the whole sequence, latents included, as the backbone itself prepares them for generation."""
        if attention_mask is None and cache is None:  # Qwen's own code expects one of several rows
            attention_mask = torch.ones_like(input_ids)
        known = {"attention_mask": attention_mask, "cache": cache, **inputs}
        known = {name: value for name, value in known.items() if value is not None}
        positions = self.backbone._prepare_position_ids_for_generation(input_ids, known)
        return positions[..., -input_ids.shape[1] :]


def _is_wanted(latent_bottleneck: torch.Tensor | bool | None) -> bool:
    return latent_bottleneck is not None and bool(torch.as_tensor(latent_bottleneck).any())
