"""STORM: a bounded rollout of latent tokens inside any transformers video-language model (arXiv 2605.26014).

The chat template writes `<|latent_start|> <|latent|> x K <|latent_end|>` after the assistant header. `StormModel.forward` runs
the prompt up to the start token, then K single-token steps that feed the projected last hidden state back as the next input
embedding, then the rest, all in one key-value cache. With `forced_latents` the latents are given (teacher forcing) and one
parallel pass does it.

Axes: B batch, S sequence, K latent steps, D hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple

from .attention_storm import hide_thought, hides_thought
from .bottleneck_storm import answer_without_clip, refuse_without_latents
from .configuration_storm import StormConfig
from .errors_storm import BackboneError
from .features_storm import flatten_features, unflatten_features
from .generation_storm import StormGenerationMixin
from .gradient_storm import RolloutGradient
from .layout_storm import find_latent_block
from .processing_storm import LATENT_TOKENS, add_latent_tokens
from .projector_storm import LatentProjector, UnitGainLinear
from .rollout_storm import LatentIntervention
from .thought_storm import StormModelOutput, Thought, keep_state


_PLACE_ARGUMENTS = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "trust_remote_code")


@dataclass
class StormCausalLMOutput(ModelOutput):
    """What the model returns: loss, logits (B, S, V), and the model's own latents (B, K, D), in target space."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    latents: torch.Tensor | None = None


class StormPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation, shared by the body and the model with its head."""

    config: StormConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
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


class StormModel(StormPreTrainedModel):
    """The body: a whole backbone and a latent projector. `forward` does the rollout."""

    def __init__(self, config: StormConfig) -> None:
        super().__init__(config)
        self.backbone = _build_backbone(config)
        self.latent_projector = LatentProjector(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's token embedding."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's token embedding."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> None:
        """The body has no head."""
        return None

    def get_decoder(self) -> nn.Module:
        """The backbone's language model."""
        return self.backbone.get_decoder()

    # Properties, not methods: `generate` inspects their signatures, and some backbones have only one of the two.

    @property
    def get_image_features(self) -> Any:
        """The backbone's image encoder."""
        return self.backbone.get_image_features

    @property
    def get_video_features(self) -> Any:
        """The backbone's video encoder."""
        return self.backbone.get_video_features

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, ModelOutput] | None = None,
        video_features: torch.Tensor | None = None,
        video_deepstack: torch.Tensor | None = None,
        forced_latents: torch.Tensor | None = None,
        latent_intervention: LatentIntervention | None = None,
        rollout_gradient: RolloutGradient | None = None,
        latent_bottleneck: torch.Tensor | bool | None = None,
        states_to_keep: int = 0,
        **kwargs: Any,
    ) -> StormModelOutput:
        """Run the backbone, thinking where the prompt has a latent block. Arguments as in the model with its head.

        With `states_to_keep`, only so many of the last hidden states are returned, for a head that needs no others; `0`
        means all.
        """
        inputs = {name: value for name, value in kwargs.items() if value is not None}
        if video_features is not None:
            inputs["mm_encoder_outputs"] = unflatten_features(
                video_features, inputs.get("video_grid_thw"), video_deepstack
            )
        elif mm_encoder_outputs:
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        block = None
        if input_ids is not None and input_ids.shape[1] > 1:  # a decoding step never looks for a block
            block = find_latent_block(input_ids, self.config, in_pieces=past_key_values is not None)
        if block is None or input_ids is None:
            refuse_without_latents(latent_bottleneck)
            if hides_thought(past_key_values):
                new = inputs_embeds if input_ids is None else input_ids
                assert new is not None
                if position_ids is None and input_ids is not None:
                    position_ids = self._positions(input_ids, attention_mask, past_key_values, inputs)
                attention_mask = hide_thought(attention_mask, past_key_values, new.shape[1])
            output = self._forward_without_latents(
                input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, inputs
            )
        else:
            if position_ids is None:
                position_ids = self._positions(input_ids, attention_mask, past_key_values, inputs)
            thought = Thought(self, block, past_key_values, forced_latents, latent_intervention, rollout_gradient)
            if latent_bottleneck is None or latent_bottleneck is False:
                output = thought(input_ids, attention_mask, position_ids, use_cache, inputs)
            else:
                output = answer_without_clip(
                    thought, latent_bottleneck, input_ids, attention_mask, position_ids, inputs
                )
        if states_to_keep and output.last_hidden_state is not None:
            output.last_hidden_state = output.last_hidden_state[:, -states_to_keep:]
        return output

    def _forward_without_latents(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        past_key_values: Cache | None,
        inputs_embeds: torch.Tensor | None,
        use_cache: bool | None,
        inputs: dict[str, Any],
    ) -> StormModelOutput:
        """The backbone itself, to the last bit."""
        output = self.backbone.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **inputs,
        )
        if output.last_hidden_state.shape[1] > 1 and not torch.is_grad_enabled():
            keep_state(output.past_key_values, output.last_hidden_state)
        return StormModelOutput(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def _positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """Positions of the whole sequence, latents included, as the backbone itself prepares them for generation."""
        if attention_mask is None and cache is None:  # Qwen's own code expects one of several rows
            attention_mask = torch.ones_like(input_ids)
        known = {"attention_mask": attention_mask, "past_key_values": cache, **inputs}
        known = {name: value for name, value in known.items() if value is not None}
        positions = self.backbone._prepare_position_ids_for_generation(input_ids, known)
        return positions[..., -input_ids.shape[1] :]


def _require_gradient(module: nn.Module, args: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)


def _build_backbone(config: StormConfig) -> PreTrainedModel:
    if getattr(config.vlm_config, "vision_config", None) is None:
        raise BackboneError(
            "STORM needs a video-language backbone of `AutoModelForImageTextToText`, got a "
            f"`{getattr(config.vlm_config, 'model_type', None)}` configuration without a vision part. Use for example "
            "Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM or InternVL."
        )
    return AutoModelForImageTextToText.from_config(config.vlm_config)


@torch.no_grad()
def _root_mean_square(weight: Any) -> float:  # DeepSpeed adds two methods to a parameter
    """Typical size of a parameter's numbers, of which ZeRO-3 may keep only a piece on each process."""
    is_in_pieces = hasattr(weight, "ds_id")
    if is_in_pieces:
        weight.all_gather()
    size = float(weight.float().pow(2).mean().sqrt())
    if is_in_pieces:
        weight.partition()
    return size


class StormForConditionalGeneration(StormPreTrainedModel, StormGenerationMixin):
    """A video-language model that thinks in K latent steps and then answers."""

    accepts_loss_kwargs = True  # the loss is divided by `num_items_in_batch` of the whole accumulated batch

    def __init__(self, config: StormConfig) -> None:
        super().__init__(config)
        self.model = StormModel(config)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str,
        num_latents: int = 8,
        *,
        processor: Any = None,
        latent_projector: str = "linear",
        latent_scale: float | None = None,
        latent_attention: str = "full",
        **kwargs: Any,
    ) -> "StormForConditionalGeneration":
        """Make a STORM of a plain video-language checkpoint: its weights, a new projector, three new tokens.

        Args:
            name_or_path (`str`):
                A checkpoint of `AutoModelForImageTextToText`, on the Hub or in a folder.
            num_latents (`int`, *optional*, defaults to `8`):
                Number K of latent steps.
            processor ([`~transformers.ProcessorMixin`], *optional*):
                The processor that will be used. By default the checkpoint's own. Latent tokens are added if missing.
            latent_projector (`str`, *optional*, defaults to `"linear"`):
                See [`StormConfig`].
            latent_scale (`float`, *optional*):
                See [`StormConfig`]. By default the root mean square of the token embeddings.
            latent_attention (`str`, *optional*, defaults to `"full"`):
                See [`StormConfig`].
            kwargs:
                Passed to `from_pretrained`; a `revision` and what else says where the checkpoint lies also holds for its
                configuration and its processor.

        Raises:
            BackboneError: If the checkpoint is not a video-language model.
        """
        place = {name: kwargs[name] for name in _PLACE_ARGUMENTS if name in kwargs}
        processor = add_latent_tokens(
            processor or transformers.AutoProcessor.from_pretrained(name_or_path, **place), num_latents
        )
        token_ids = processor.tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
        config = StormConfig(
            vlm_config=AutoConfig.from_pretrained(name_or_path, **place),
            num_latents=num_latents,
            latent_start_token_id=token_ids[0],
            latent_token_id=token_ids[1],
            latent_end_token_id=token_ids[2],
            latent_projector=latent_projector,
            latent_attention=latent_attention,
        )
        model = cls.from_pretrained(name_or_path, config=config, key_mapping={r"^": "model.backbone."}, **kwargs)
        # save_pretrained would revert the key mapping and write names that from_pretrained cannot read back.
        model._weight_conversions = [
            conversion for conversion in model._weight_conversions if conversion.source_patterns != ["^"]
        ]
        embeddings = model.get_input_embeddings()
        model.config.latent_scale = _root_mean_square(embeddings.weight) if latent_scale is None else latent_scale
        if max(token_ids) >= embeddings.num_embeddings:
            model.resize_token_embeddings(len(processor.tokenizer))
        return model

    @property
    def backbone(self) -> PreTrainedModel:
        """The wrapped video-language model, whole, with its head."""
        return self.model.backbone

    @property
    def lm_head(self) -> nn.Module:
        """The backbone's language-model head."""
        return self.get_output_embeddings()

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's token embedding."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's token embedding."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The backbone's language-model head."""
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's language-model head."""
        self.backbone.set_output_embeddings(value)

    def get_decoder(self) -> nn.Module:
        """The backbone's language model."""
        return self.backbone.get_decoder()

    @torch.no_grad()
    def encode_video(self, **vision_inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode videos once, for batches that carry features instead of pixels.

        Args:
            vision_inputs (`torch.Tensor`):
                What the backbone's `get_video_features` takes, for example `pixel_values_videos` and `video_grid_thw`.

        Returns:
            `dict`: `video_features` of shape `(num_tokens, hidden_size)` and, if the backbone injects deep features,
            `video_deepstack` of shape `(num_layers, num_tokens, hidden_size)`.
        """
        return flatten_features(self.model.get_video_features(**vision_inputs, return_dict=True))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project hidden states with the backbone's head, its scaling and its soft cap."""
        text_config = self.config.get_text_config()
        logits = self.get_output_embeddings()(hidden_states)
        for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
            if (factor := getattr(text_config, name, None)) is not None:
                logits = logits * factor
        if (divisor := getattr(text_config, "logits_scaling", None)) is not None:
            logits = logits / divisor
        if (cap := getattr(text_config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
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
            past_key_values ([`~transformers.Cache`], *optional*):
                Cache to go on from.
            inputs_embeds (`torch.Tensor`, *optional*):
                Instead of `input_ids`, for prompts without latents.
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                -100 where nothing is predicted, as on the latent block. In training mode only supervised positions are
                projected, and `logits` is `None`.
            use_cache (`bool`, *optional*):
                Whether to return the cache.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to `0`):
                How many of the last positions to project; `0` means all.
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
            kwargs:
                Passed to the backbone: pixels, grids, token types.

        Returns:
            [`StormCausalLMOutput`]: `latents` are the model's own, of shape `(batch_size, num_latents, hidden_size)`, also
            under teacher forcing and intervention; `None` without a latent block.

        Raises:
            LatentLayoutError: If the latent block is broken.
            LatentShapeError: If `forced_latents` does not fit it.
            CacheError: If there is a cache and a `latent_bottleneck`.
        """
        loss_kwargs = {name: kwargs.pop(name) for name in ("num_items_in_batch", "shift_labels") if name in kwargs}
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            video_features=video_features,
            video_deepstack=video_deepstack,
            forced_latents=forced_latents,
            latent_intervention=latent_intervention,
            rollout_gradient=rollout_gradient,
            latent_bottleneck=latent_bottleneck,
            **kwargs,
        )
        logits, loss = None, None
        if labels is not None:
            loss = self._supervised_loss(output.last_hidden_state, labels, **loss_kwargs)
        if labels is None or not self.training:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.compute_logits(output.last_hidden_state[:, keep])
        return StormCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            latents=output.latents,
        )

    def _supervised_loss(
        self,
        hidden_states: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        shift_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Cross entropy over the supervised positions only; no other position is projected."""
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        is_supervised = shift_labels != -100  # (B, S)
        logits = self.compute_logits(hidden_states[is_supervised]).float()
        total = nn.functional.cross_entropy(logits, shift_labels[is_supervised], reduction="sum")
        return total / (is_supervised.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


__all__ = ["StormForConditionalGeneration", "StormModel", "StormPreTrainedModel"]
