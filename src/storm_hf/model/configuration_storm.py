"""The configuration of STORM: a video-language backbone and a bounded rollout of latent tokens.

Minor versions of transformers rename arguments of every model's forward pass, so a version that was never tested is named when
the code is loaded: an older one in an error, a newer one in a warning.
"""

import logging
import os
import re
from typing import Any

import transformers
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .errors_storm import ConfigurationError, DependencyError
from .processing_storm import PromptRecord


__all__ = ["StormConfig"]

OLDEST, NEWEST = (
    (5, 24),
    (5, 24),
)  # the range of pyproject.toml; `make test` runs the one, `make test-latest` the other

logger = logging.getLogger(__name__)


def check_transformers(version: str = transformers.__version__) -> None:
    """Refuse a transformers that is too old for this code, and warn of one that it was not tested with.

    Args:
        version (`str`, *optional*):
            Version of transformers. By default the installed one.

    Raises:
        DependencyError: If it is older than the oldest supported one.
    """
    found = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        raise DependencyError(
            f"STORM needs transformers {_shown(OLDEST)} or newer, got {version}. Run `pip install --upgrade "
            f"'transformers>={_shown(OLDEST)}'`."
        )
    if found > NEWEST:
        logger.warning(
            "STORM was tested with transformers up to %s, and this is %s, whose forward passes may differ. If loading fails or "
            "answers look wrong, run `pip install 'transformers==%s.*'`.",
            _shown(NEWEST),
            version,
            _shown(NEWEST),
        )


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


check_transformers()  # this file is loaded first, and the next names are those of a supported version


_CLASS_OF_AUTO = {
    "AutoConfig": "configuration_storm.StormConfig",
    "AutoModel": "modeling_storm.StormForConditionalGeneration",
    "AutoModelForCausalLM": "modeling_storm.StormForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_storm.StormForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_storm.StormForConditionalGeneration",
}
_PROJECTOR_KINDS = ("linear", "mlp", "identity")
_ATTENTION_KINDS = ("full", "step")


@strict
class StormConfig(PreTrainedConfig):
    r"""
    vlm_config (`dict` or [`PreTrainedConfig`], *optional*):
        Configuration of the backbone: any model of `AutoModelForImageTextToText` that reads videos.
    num_latents (`int`, *optional*, defaults to `8`):
        Number K of latent steps that the chat template writes. `0` answers without thinking.
    max_num_latents (`int`, *optional*, defaults to `64`):
        Bound of the rollout. A prompt with a longer latent block is refused.
    latent_start_token_id (`int`, *optional*):
        Id of `<|latent_start|>`, which opens the latent block.
    latent_token_id (`int`, *optional*):
        Id of `<|latent|>`, the placeholder of one latent step. `None` switches the rollout off: the placeholders are then
        ordinary tokens with a learned embedding ("pause tokens").
    latent_end_token_id (`int`, *optional*):
        Id of `<|latent_end|>`, which closes the latent block.
    latent_projector (`str`, *optional*, defaults to `"linear"`):
        Map from a hidden state to a latent: `"linear"` (layer norm, linear), `"mlp"` (layer norm, two layers) or
        `"identity"` (the hidden state itself, as in Coconut and in the paper; measured worse).
    latent_scale (`float`, *optional*, defaults to `1.0`):
        Factor between a latent, which lives in the unit space of the target trajectories, and the input embedding that is
        fed. `from_backbone` sets it to the root mean square of embedded tokens, or to 1 for `latent_projector="identity"`.
    logits_scale (`float`, *optional*):
        Factor of the backbone's head. `from_backbone` measures it; `None` reads it off the backbone's settings.
    latent_attention (`str`, *optional*, defaults to `"full"`):
        Context of a latent: `"full"`, everything before it, or `"step"`, its own stretch of the clip and the latent
        before. With `"step"`, which assumes that steps are spread evenly over the clip, a model thinks for longer than trained.
    thought_adapter (`dict`, *optional*):
        Arguments of a [`~peft.LoraConfig`], such as `r` and `lora_alpha`, for low-rank updates of the language model that act
        from `<|latent_start|>` on: the trainers then train them and the projector alone, and without a latent block the
        model is its backbone.
    halting_head (`bool`, *optional*, defaults to `False`):
        Whether a head reads after each latent if the thought may end there. Stage II adds and trains it (`halting: true`);
        `num_latents` is then the bound of a thought that ends by itself.
    halting_threshold (`float`, *optional*, defaults to `0.5`):
        Probability of having ended at which a thought ends. Higher means longer.
    storm_prompt (`dict`, *optional*):
        Form of the prompts that the model was trained on, written by the trainers; see [`PromptRecord`].
    """

    model_type = "storm"
    sub_configs_defaults = {"vlm_config": SubConfigSpec(AutoConfig, model_type="qwen2_5_vl")}
    keys_to_ignore_at_inference = ["cache", "latents"]

    vlm_config: dict | PreTrainedConfig | None = None
    num_latents: int = 8
    max_num_latents: int = 64
    latent_start_token_id: int | None = None
    latent_token_id: int | None = None
    latent_end_token_id: int | None = None
    latent_projector: str = "linear"
    latent_scale: float | int = 1.0
    logits_scale: float | None = None
    latent_attention: str = "full"
    thought_adapter: dict | None = None
    halting_head: bool = False
    halting_threshold: float = 0.5
    storm_prompt: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        auto_map = kwargs.pop("auto_map", None)
        super().__post_init__(**kwargs)
        self.auto_map = auto_map or dict(_CLASS_OF_AUTO)
        self.check_latents()
        _ = self.prompt_record  # refuses what is no record

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the configuration of a checkpoint. A plain one is read as a backbone without room for latents.

        No model is made of that. PEFT reads the base of an adapter so when it saves the adapter, and compares vocabularies.
        """
        config, others = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config.get("model_type", cls.model_type) == cls.model_type:
            return config, others
        return {"model_type": cls.model_type, "vlm_config": config, "num_latents": 0, "max_num_latents": 0}, others

    def check_latents(self) -> None:
        """Check the settings of the rollout, and that they go together.

        Raises:
            ConfigurationError: If they do not.
        """
        if self.latent_projector not in _PROJECTOR_KINDS:
            raise ConfigurationError(
                f"`latent_projector` must be one of {', '.join(_PROJECTOR_KINDS)}, got {self.latent_projector!r}."
            )
        if self.latent_attention not in _ATTENTION_KINDS:
            raise ConfigurationError(
                f"`latent_attention` must be one of {', '.join(_ATTENTION_KINDS)}, got {self.latent_attention!r}."
            )
        if not self.latent_scale > 0:
            raise ConfigurationError(
                f"`latent_scale` must be above 0, got {self.latent_scale}: a latent is multiplied by it before it is fed. "
                "`from_backbone` measures it where it is left out."
            )
        if self.halting_head and self.latent_attention != "full":
            raise ConfigurationError(
                f"`halting_head` needs `latent_attention='full'`, got {self.latent_attention!r}, where a latent is made from a "
                "stretch of the clip that depends on how many there are. Leave one of the two out."
            )
        if not 0 < self.halting_threshold < 1:
            raise ConfigurationError(
                f"`halting_threshold` must be a probability between 0 and 1, got {self.halting_threshold}."
            )
        if not 0 <= self.num_latents <= self.max_num_latents:
            raise ConfigurationError(
                f"`num_latents` must lie between 0 and `max_num_latents` = {self.max_num_latents}, got "
                f"{self.num_latents}. Raise `max_num_latents` if you mean it."
            )
        if self.latent_token_id is not None and len(set(self.latent_block_ids) - {None}) != 3:
            raise ConfigurationError(
                "`latent_token_id` needs `latent_start_token_id` and `latent_end_token_id` beside it, three different "
                f"ids; got {self.latent_block_ids}. `add_latent_tokens(processor)` makes them."
            )

    @property
    def _attn_implementation(self) -> str | None:
        return self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | dict[str, Any] | None) -> None:
        PreTrainedConfig._attn_implementation.__set__(self, implementation_by_part(value))

    @property
    def _experts_implementation(self) -> str | None:
        return self._experts_implementation_internal

    @_experts_implementation.setter
    def _experts_implementation(self, value: str | dict[str, Any] | None) -> None:
        PreTrainedConfig._experts_implementation.__set__(self, implementation_by_part(value))

    @property
    def latent_block_ids(self) -> tuple[int | None, int | None, int | None]:
        """The ids of `<|latent_start|>`, `<|latent|>` and `<|latent_end|>`, in this order."""
        return self.latent_start_token_id, self.latent_token_id, self.latent_end_token_id

    @property
    def prompt_record(self) -> PromptRecord:
        """The form of the prompts that the model was trained on."""
        return PromptRecord.from_dict(self.num_latents, self.storm_prompt)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The backbone's language configuration; generation, TRL, PEFT and DeepSpeed read sizes off it."""
        assert isinstance(self.vlm_config, PreTrainedConfig)  # a dict is made one when the config is made
        return self.vlm_config.get_text_config(decoder=decoder, encoder=encoder)

    @property
    def vision_config(self) -> Any:
        """The backbone's vision configuration; converters of its weights read numbers of heads off it."""
        return self.vlm_config.vision_config  # type: ignore[union-attr]

    @property
    def text_config(self) -> Any:
        """The backbone's language configuration, where it has one by this name."""
        return self.vlm_config.text_config  # type: ignore[union-attr]

    @property
    def hidden_size(self) -> int:
        """Width D of the language model, and so of a latent."""
        return self.get_text_config().hidden_size

    @property
    def vocab_size(self) -> int:
        """Number of rows of the token embedding."""
        return self.get_text_config().vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.get_text_config().vocab_size = value

    @property
    def tie_word_embeddings(self) -> bool:
        """True if the backbone's head shares its weights with the token embedding."""
        return getattr(self.vlm_config, "tie_word_embeddings", False)

    @tie_word_embeddings.setter
    def tie_word_embeddings(self, value: bool) -> None:
        assert isinstance(self.vlm_config, PreTrainedConfig)
        self.vlm_config.tie_word_embeddings = value

    @property
    def image_token_id(self) -> int | None:
        """The backbone's image placeholder."""
        return self._placeholder("image")

    @property
    def video_token_id(self) -> int | None:
        """The backbone's video placeholder; `None` where videos are read as images."""
        return self._placeholder("video")

    @property
    def vision_token_ids(self) -> list[int]:
        """The backbone's placeholders of videos, images and their sound."""
        found = [self._placeholder(kind) for kind in ("video", "image", "audio")]
        return [one for one in found if one is not None]

    def _placeholder(self, kind: str) -> int | None:
        for name in (f"{kind}_token_id", f"{kind}_token_index", f"{kind}_patch_id"):
            if (token_id := getattr(self.vlm_config, name, None)) is not None:
                return token_id
        return None


def implementation_by_part(value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Take the parts of a backbone that an `attn_implementation` or `experts_implementation` names, such as `text_config`, for parts of `vlm_config`.

    Args:
        value (`str` or `dict`, *optional*):
            For the whole model, or by parts, of which `""` is the model itself.
    """
    if not isinstance(value, dict):
        return value
    of_model = {part: name for part, name in value.items() if part in ("", "vlm_config")}
    of_backbone = {part: name for part, name in value.items() if part not in of_model}
    if not of_backbone:
        return value
    whole = of_model.pop("vlm_config", {})
    return {**of_model, "vlm_config": {**(whole if isinstance(whole, dict) else {"": whole}), **of_backbone}}
