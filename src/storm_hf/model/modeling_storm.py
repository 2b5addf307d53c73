"""STORM: a bounded rollout of latent tokens inside any transformers video-language model (arXiv 2605.26014).

The body thinks, the backbone's own head answers. The chat template writes `<|latent_start|> <|latent|> x K <|latent_end|>` after
the assistant header. `StormModel.forward` runs the prompt up to the start token, then K single-token steps that feed the projected
last hidden state back as the next input embedding, then the rest, all in one key-value cache. With `forced_latents` the latents are
given (teacher forcing) and one parallel pass does it. A latent lives in the unit space of the target trajectories (root mean square
one). It is fed to the language model after multiplication with `StormConfig.latent_scale`.

The other files of a checkpoint's code are its parts: `rollout_storm` for the loop, `latent_forward_storm` for the forward pass
around it, `cache_storm` for the caches, `generation_storm` for `generate`, `backbone_storm` for `from_backbone`.

Axes: B batch, S sequence, K latent steps, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .backbone_storm import (
    FromBackboneMixin,
    build_backbone,
    load_balancing_loss,
    name_experts,
    scale_and_cap,
    scale_of_settings,
)
from .bottleneck_storm import answer_without_clip
from .cache_storm import rollout_state
from .configuration_storm import StormConfig, implementation_by_part
from .errors_storm import ConfigurationError
from .generation_storm import StormGenerationMixin
from .halting_storm import HaltingHead, StepAnswers, refuse_beside_answers
from .latent_block_storm import LatentBlock, find_latent_block, refuse_embedded_block, refuse_without_block
from .latent_forward_storm import LatentForward, StormModelOutput, read_to_thought
from .latent_projector_storm import LatentProjector, UnitGainLinear
from .rollout_storm import LatentIntervention, RolloutGradient
from .step_mask_storm import check_layers, hide_thought, hides_thought
from .thought_adapter_storm import acting, insert_thought_adapter, thought_layers
from .video_features_storm import flatten_features, prepare_positions, unflatten_features


__all__ = ["StormForConditionalGeneration", "StormModel", "StormPreTrainedModel"]


_ROLLOUT_ARGUMENTS = (
    "forced_latents",
    "latent_intervention",
    "rollout_gradient",
    "latent_bottleneck",
    "clip_token_mask",
    "answer_every_step",
)


class StormInputs(TypedDict, total=False):
    """Arguments of the rollout and of encoded clips, which the body and the model with its head take.

    Args:
        forced_latents (`torch.Tensor` of shape `(batch_size, num_latents, hidden_size)`, *optional*):
            Teacher forcing: what each slot is fed, in target space, instead of the model's own latents.
        latent_intervention (`Callable[[int, torch.Tensor], torch.Tensor]`, *optional*):
            Replaces the latent (batch_size, hidden_size) of a step before it is fed.
        rollout_gradient ([`RolloutGradient`], *optional*):
            Cheaper, inexact ways back through the rollout. By default the gradient is exact.
        latent_bottleneck (`bool` or `torch.BoolTensor` of shape `(batch_size,)`, *optional*):
            Whether a row's answer gets the clip's information through the content of its latents alone.
        clip_token_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
            True where the processor wrote something for a clip, for the bottleneck; see [`ClipFreeRows`].
        answer_every_step (`bool`, *optional*):
            Whether what follows the latents is also read after each smaller number of them, as a prompt with so many has it: the
            losses that a halting head learns from.
        mm_encoder_outputs (`dict`, *optional*):
            Encoded images and videos, instead of pixels.
        video_features (`torch.Tensor` of shape `(num_tokens, hidden_size)`, *optional*):
            Encoded videos as a flat tensor, with `video_grid_thw`; see [`~StormForConditionalGeneration.encode_video`].
        video_deepstack (`torch.Tensor` of shape `(num_layers, num_tokens, hidden_size)`, *optional*):
            Their deepstack features.
    """

    forced_latents: torch.Tensor | None
    latent_intervention: LatentIntervention | None
    rollout_gradient: RolloutGradient | None
    latent_bottleneck: torch.Tensor | bool | None
    clip_token_mask: torch.Tensor | None
    answer_every_step: bool | None
    mm_encoder_outputs: dict[str, ModelOutput] | None
    video_features: torch.Tensor | None
    video_deepstack: torch.Tensor | None


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
        if isinstance(module, UnitGainLinear | HaltingHead):
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

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], *args: object, **kwargs: object
    ) -> None:
        """Set the attention of the model, or of its parts by name, those of its backbone (`text_config`) among them."""
        super().set_attn_implementation(implementation_by_part(attn_implementation), *args, **kwargs)

    def set_experts_implementation(self, experts_implementation: str | dict[str, Any]) -> None:
        """Set how experts are run, in the model or in its parts by name."""
        super().set_experts_implementation(implementation_by_part(experts_implementation))

    def resize_token_embeddings(self, *args: object, **kwargs: object) -> nn.Module:
        """Resize as the backbone does, which may have further embeddings of the same tokens."""
        return self.backbone.resize_token_embeddings(*args, **kwargs)

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the embedded tokens, as gradient checkpointing asks for.

        transformers does the same to what goes into the vision tower, which would then keep its activations and be gone
        back through although it is frozen. A tower that trains has gradients of its own. With a thought adapter nothing is
        recomputed, and the prompt, which frozen weights read, would keep all of its activations.
        """
        self.disable_input_require_grads()
        if self.config.thought_adapter is not None:
            return
        hook = self.get_input_embeddings().register_forward_hook(_require_gradient)
        self._require_grads_hook, self._require_grads_hooks = hook, [hook]

    def save_pretrained(
        self, save_directory: str, *args: object, save_original_format: bool = False, **kwargs: object
    ) -> None:
        """Save weights, config and code.

        Keys are written as this class names them. In a backbone's original format, `Trainer` would resume without most
        weights of Qwen2.5-VL, LLaVA-OneVision and InternVL.
        """
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)


def _require_gradient(module: nn.Module, args: object, output: torch.Tensor) -> None:
    output.requires_grad_(True)


@dataclass
class StormCausalLMOutput(ModelOutput):
    """Output of the model: loss, logits (B, S, V), and the model's own latents (B, K, D), in target space.

    With `answer_every_step`, `step_losses` (B, K) are the losses of each row's answer after each number of latents, summed over its
    tokens, and `halting_logits` (B, K) those of the halting head.
    """

    loss: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor | None, ...] | None = None
    router_logits: tuple[torch.Tensor, ...] | None = None
    latents: torch.Tensor | None = None
    step_losses: torch.Tensor | None = None
    halting_logits: torch.Tensor | None = None


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

    def add_halting_head(self) -> None:
        """Add a halting head, which is to be trained: at first a thought ends late, and at the same step for every question.

        Raises:
            ConfigurationError: If there is one, or latents depend on how many there are.
        """
        if self.config.halting_head:
            raise ConfigurationError("Expected a model without a halting head, got one that has it. Train that one.")
        StormConfig(**{**self.config.to_dict(), "halting_head": True})  # refuses what cannot have one
        self.config.halting_head = True
        self.model.halting_head = HaltingHead(self.config).to(self.device)

    def compute_logits(
        self, hidden_states: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Project hidden states with the backbone's head, or a given one, its scaling and its soft cap."""
        text_config, scale = self.config.get_text_config(), self.config.logits_scale
        logits = (head or self.get_output_embeddings())(hidden_states)
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
        **kwargs: Unpack[StormInputs],
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
            kwargs ([`StormInputs`]):
                Arguments of the rollout. All others are passed to the backbone: pixels, grids, token types.

        Returns:
            [`StormCausalLMOutput`]: `latents` are the model's own, of shape `(batch_size, num_latents, hidden_size)`, also
            under teacher forcing and intervention; `None` without a latent block.

        Raises:
            LatentError: If the latent block is broken, or there is none for an argument that acts on latents, or if
                `forced_latents` does not fit it.
            ConfigurationError: If there is a cache and a `latent_bottleneck`.
        """
        loss_kwargs = {name: kwargs.pop(name) for name in ("num_items_in_batch", "shift_labels") if name in kwargs}
        output = self.model(input_ids, attention_mask, position_ids, cache, inputs_embeds, use_cache, **kwargs)
        logits, loss = None, None
        if labels is not None:
            loss = self._supervised_loss(output.last_hidden_state, labels, **loss_kwargs)
        if labels is None or not self.training:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.compute_logits(output.last_hidden_state[:, keep])
        loss, aux_loss = self._with_router_loss(loss, output, attention_mask)
        return StormCausalLMOutput(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            cache=output.cache,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            router_logits=output.router_logits,
            latents=output.latents,
            step_losses=self._step_losses(output, labels),
            halting_logits=self._halting_logits(output),
        )

    def _halting_logits(self, output: StormModelOutput) -> torch.Tensor | None:
        if output.step_states is None or self.model.halting_head is None:
            return None
        return self.model.halting_head(output.step_states)

    def _step_losses(self, output: StormModelOutput, labels: torch.Tensor | None) -> torch.Tensor | None:
        """Cross entropy of each row's answer after each number of latents, (B, K)."""
        if output.step_answers is None or labels is None:
            return None
        num_rows, num_latents, num_columns, _ = output.step_answers.shape
        targets = nn.functional.pad(labels[:, -num_columns:][:, 1:], (0, 1), value=-100)  # (B, A)
        row, column = (targets != -100).nonzero(as_tuple=True)  # (N,)
        logits = self.compute_logits(output.step_answers.transpose(1, 2)[row, column]).float()  # (N, K, V)
        target = targets[row, column][:, None].expand(-1, num_latents)
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return losses.new_zeros(num_rows, num_latents).index_add(0, row, losses.view(-1, num_latents))

    def _with_router_loss(
        self, loss: torch.Tensor | None, output: StormModelOutput, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Add the load-balancing loss of a mixture of experts; also return it alone."""
        if not output.router_logits:
            return loss, None
        text_config = self.config.get_text_config()
        aux_loss = load_balancing_loss(output.router_logits, text_config, attention_mask)
        if loss is not None:
            loss = loss + getattr(text_config, "router_aux_loss_coef", 0.0) * aux_loss.to(loss.device)
        return loss, aux_loss

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
        positions = is_supervised.nonzero(as_tuple=True)  # one wait for the device, where a mask waits as each index
        logits = self.compute_logits(hidden_states[positions]).float()
        total = nn.functional.cross_entropy(logits, shift_labels[positions], reduction="sum")
        return total / (is_supervised.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


class StormModel(StormPreTrainedModel):
    """The body: a whole backbone and a latent projector. `forward` does the rollout."""

    def __init__(self, config: StormConfig) -> None:
        super().__init__(config)
        config.check_latents()  # what `from_pretrained` is given comes after the checks of the configuration
        self.backbone = build_backbone(config)
        if config.thought_adapter is not None:
            insert_thought_adapter(self.get_decoder(), config.thought_adapter)
        if config.latent_attention == "step":
            check_layers(self.get_decoder())
        self.latent_projector = LatentProjector(config)
        self.halting_head = HaltingHead(config) if config.halting_head else None
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
        states_to_keep: int = 0,
        **kwargs: Unpack[StormInputs],
    ) -> StormModelOutput:
        """Run the backbone, thinking where the prompt has a latent block. Arguments as in the model with its head.

        With `states_to_keep`, only so many of the last hidden states are returned, for a head that needs no others; `0`
        means all.
        """
        rollout: dict[str, Any] = {name: kwargs.pop(name, None) for name in _ROLLOUT_ARGUMENTS}
        inputs = self._backbone_inputs(**kwargs)
        block = None
        if input_ids is not None and input_ids.shape[1] > 1:  # a decoding step never looks for a block
            mask = attention_mask if isinstance(attention_mask, torch.Tensor) else None
            block = find_latent_block(input_ids, self.config, is_chunk=cache is not None, attention_mask=mask)
        if block is None or input_ids is None:
            if inputs_embeds is not None and input_ids is None:
                refuse_embedded_block(inputs_embeds, self.get_input_embeddings(), self.config)
            _refuse_rollout(cache, **rollout)
            output = self._forward_without_latents(
                input_ids, attention_mask, position_ids, cache, inputs_embeds, use_cache, inputs
            )
        else:
            if position_ids is None:
                position_ids = self._positions(input_ids, attention_mask, cache, inputs)
            output = self._forward_with_latents(
                block, cache, input_ids, attention_mask, position_ids, use_cache, inputs, **rollout
            )
        if states_to_keep and output.last_hidden_state is not None:
            output.last_hidden_state = output.last_hidden_state[:, -states_to_keep:]
        return output

    def _backbone_inputs(
        self,
        video_features: torch.Tensor | None = None,
        video_deepstack: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, ModelOutput] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Arguments of the backbone that are given, with flat video features as the output of its encoder."""
        inputs = {name: value for name, value in kwargs.items() if value is not None}
        if video_features is not None:
            dtype: torch.dtype = self.get_input_embeddings().weight.dtype  # type: ignore[assignment]
            inputs["mm_encoder_outputs"] = unflatten_features(
                video_features, inputs.get("video_grid_thw"), video_deepstack, dtype=dtype
            )
        elif mm_encoder_outputs:
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        return inputs

    def _forward_with_latents(
        self,
        block: LatentBlock,
        cache: Cache | None,
        *tokens: Any,
        forced_latents: torch.Tensor | None,
        latent_intervention: LatentIntervention | None,
        rollout_gradient: RolloutGradient | None,
        latent_bottleneck: torch.Tensor | bool | None,
        clip_token_mask: torch.Tensor | None,
        answer_every_step: bool | None,
    ) -> StormModelOutput:
        """Think, and with a bottleneck read the prompt once more without its clip. `tokens` are arguments of [`LatentForward`]."""
        answers = StepAnswers(block) if answer_every_step else None
        think = LatentForward(self, block, cache, forced_latents, latent_intervention, rollout_gradient, answers)
        if answers is not None:
            refuse_beside_answers(forced_latents, latent_bottleneck, cache, rollout_gradient)
            return answers.add_to(think(*tokens))
        if latent_bottleneck is None or latent_bottleneck is False:
            return think(*tokens)
        input_ids, attention_mask, position_ids, _, inputs = tokens
        return answer_without_clip(
            think, latent_bottleneck, input_ids, attention_mask, position_ids, inputs, clip_token_mask
        )

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
        arguments = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        others = {"inputs_embeds": inputs_embeds, "use_cache": use_cache}
        output = self._read(cache, arguments, others, inputs)
        if output.cache is not None and output.last_hidden_state.shape[1] > 1 and not torch.is_grad_enabled():
            rollout_state(output.cache).keep(output.last_hidden_state)
        return StormModelOutput(
            last_hidden_state=output.last_hidden_state,
            cache=output.cache,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
            router_logits=output.get("router_logits"),
        )

    def _read(
        self, cache: Cache | None, tokens: dict[str, Any], others: dict[str, Any], inputs: dict[str, Any]
    ) -> ModelOutput:
        """Run the backbone, with the thought adapter, if there is one, once its thought has begun."""
        layers = [] if self.config.thought_adapter is None else thought_layers(self.get_decoder())
        has_begun = cache is not None and rollout_state(cache).adapter_acts
        if layers and cache is not None and not has_begun and self._opens_thought(tokens["input_ids"]):
            if tokens["position_ids"] is None:
                tokens["position_ids"] = self._positions(tokens["input_ids"], tokens["attention_mask"], cache, inputs)
            return read_to_thought(self, cache, **tokens, inputs=inputs)
        with acting(layers, has_begun):
            return self.backbone.base_model(cache=cache, return_dict=True, **tokens, **others, **inputs)

    def _opens_thought(self, input_ids: torch.Tensor | None) -> bool:
        """Check that a piece of a prompt ends where its latents begin. A decoding step does not wait for the device."""
        start_id = self.config.latent_start_token_id
        if input_ids is None or start_id is None or input_ids.shape[1] == 1:
            return False
        return bool(input_ids[:, -1].eq(start_id).all())

    def _positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None, inputs: dict[str, Any]
    ) -> torch.Tensor:
        """Positions of the whole sequence, latents included, as the backbone itself prepares them for generation."""
        if attention_mask is None and cache is None:  # Qwen's own code expects one of several rows
            attention_mask = torch.ones_like(input_ids)
        known = {"attention_mask": attention_mask, "cache": cache, **inputs}
        known = {name: value for name, value in known.items() if value is not None}
        positions = prepare_positions(self.backbone, input_ids, known)
        return positions[..., -input_ids.shape[1] :]


def _refuse_rollout(
    cache: Cache | None,
    forced_latents: torch.Tensor | None,
    latent_intervention: LatentIntervention | None,
    rollout_gradient: RolloutGradient | None,
    latent_bottleneck: torch.Tensor | bool | None,
    answer_every_step: bool | None,
    **_: object,
) -> None:
    """Refuse what acts on latents where there are none. With a cache, the block may have come in an earlier piece."""
    if cache is None:
        refuse_without_block(
            forced_latents=forced_latents,
            latent_intervention=latent_intervention,
            rollout_gradient=None if rollout_gradient == RolloutGradient() else rollout_gradient,
            answer_every_step=answer_every_step or None,
        )
    is_wanted = latent_bottleneck is not None and bool(torch.as_tensor(latent_bottleneck).any())
    refuse_without_block(latent_bottleneck=latent_bottleneck if is_wanted else None)
