"""From a plain video-language checkpoint to a STORM: the same weights, a new projector, three new tokens."""

from collections.abc import Callable
from typing import Any, Self

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from .configuration_storm import StormConfig
from .errors_storm import BackboneError
from .probe_storm import can_probe, probe_backbone
from .processing_storm import LATENT_TOKENS, add_latent_tokens


_NUM_SAMPLED_TOKENS = 4096
_PLACE_ARGUMENTS = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "trust_remote_code")


class FromBackboneMixin:
    """Gives a model `from_backbone`."""

    from_pretrained: Callable[..., Any]

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
    ) -> Self:
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
                See [`StormConfig`]. By default the root mean square of embedded tokens, and 1 for `latent_projector="identity"`.
            latent_attention (`str`, *optional*, defaults to `"full"`):
                See [`StormConfig`].
            kwargs:
                Passed to `from_pretrained`; a `revision` and what else says where the checkpoint lies also holds for its
                configuration and its processor.

        Raises:
            BackboneError: If the checkpoint is not a video-language model, or does not think as it should on a short prompt; the
                error names the step that failed.
        """
        place = {name: kwargs[name] for name in _PLACE_ARGUMENTS if name in kwargs}
        processor = processor or transformers.AutoProcessor.from_pretrained(name_or_path, **place)
        tokenizer = add_latent_tokens(processor, num_latents).tokenizer
        token_ids = tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
        config = StormConfig(
            vlm_config=AutoConfig.from_pretrained(name_or_path, **place),
            num_latents=num_latents,
            latent_start_token_id=token_ids[0],
            latent_token_id=token_ids[1],
            latent_end_token_id=token_ids[2],
            latent_projector=latent_projector,
            latent_attention=latent_attention,
        )
        model = cls._with_weights_of(name_or_path, config, **kwargs)
        if latent_scale is None:
            latent_scale = 1.0 if latent_projector == "identity" else _size_of_embedded_tokens(model)
        model.config.latent_scale = latent_scale
        if max(token_ids) >= model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        if can_probe(model):
            probe_backbone(model)
        return model

    @classmethod
    def _with_weights_of(cls, name_or_path: str, config: StormConfig, **kwargs: Any) -> Any:
        model = cls.from_pretrained(name_or_path, config=config, key_mapping={r"^": "model.backbone."}, **kwargs)
        # save_pretrained would revert the key mapping and write names that from_pretrained cannot read back.
        model._weight_conversions = [
            conversion for conversion in model._weight_conversions if conversion.source_patterns != ["^"]
        ]
        return model


def build_backbone(config: StormConfig) -> PreTrainedModel:
    """Make the video-language model of a configuration, with weights of chance.

    Raises:
        BackboneError: If it is not one.
    """
    if getattr(config.vlm_config, "vision_config", None) is None:
        raise BackboneError(
            "STORM needs a video-language backbone of `AutoModelForImageTextToText`, got a "
            f"`{getattr(config.vlm_config, 'model_type', None)}` configuration without a vision part. Use for example "
            "Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM or InternVL."
        )
    return AutoModelForImageTextToText.from_config(config.vlm_config)


@torch.no_grad()
def _size_of_embedded_tokens(model: PreTrainedModel) -> float:
    """Root mean square of embedded tokens, which some backbones scale in their embedding, over a sample of the vocabulary."""
    embedding = model.get_input_embeddings()
    weights = [weight for weight in embedding.parameters() if hasattr(weight, "ds_id")]  # pieces, with ZeRO-3
    for weight in weights:
        weight.all_gather()
    device = (
        "cpu" if embedding.weight.device.type == "meta" else embedding.weight.device
    )  # offloaded ones move what they get
    num_tokens = embedding.num_embeddings
    ids = torch.linspace(0, num_tokens - 1, min(num_tokens, _NUM_SAMPLED_TOKENS), device=device).long()
    try:
        size = float(embedding(ids[None]).float().pow(2).mean().sqrt())
    except (NotImplementedError, RuntimeError, ValueError) as error:  # an offloaded matrix that cannot be read
        raise BackboneError(
            f"Expected token embeddings that can be looked at, to measure `latent_scale`, but that fails: {error} Load the "
            "embedding on a device, or pass `latent_scale`."
        ) from error
    for weight in weights:
        weight.partition()
    return size
