"""Latent bottleneck: the answer gets the clip's information from the content of the latents alone.

The rollout runs as usual, with the video in the context. Then the prompt is read once more with the clip taken out and the latents
given, and the answer comes from there: a short pass over question, K latents and answer. Whatever it knows of the clip has passed
through K vectors. A mask that hides the clip from the answer would not do: the slots attend to the clip and the answer to their
keys and values, whatever they were fed.

Axes: B batch, S sequence, T sequence without the clip, K latent steps, D hidden size.
"""

from typing import Any

import torch

from .configuration_storm import StormConfig
from .errors_storm import BackboneError, ConfigurationError
from .latent_block_storm import PER_TOKEN_INPUTS
from .latent_forward_storm import LatentForward, StormModelOutput


# Prefixes of the inputs of pictures, videos and sound, as processors name them.
CLIP_INPUTS = (
    "pixel_",
    "video_",
    "image_",
    "second_per_grid_ts",
    "mm_encoder_outputs",
    "target_sizes",
    "spatial_shapes",
    "num_frames_per_video",
    "batch_num_images",
    "clip_token_mask",
    "input_features",
    "input_values",
    "chunk_sample_lengths",
    "feature_attention_mask",
    "audio_",
    "use_audio_in_video",
)


class ClipFreeRows:
    """A batch without the tokens of its clips, and without the padding that all rows have.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            The whole prompts.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 where a token is.
        config ([`StormConfig`]):
            Knows which tokens stand for videos, images and sound.
        clip_token_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
            True where the processor wrote something for a clip: its placeholders, and with many backbones times, frame numbers
            and markers between and before them. By default the placeholders, if they lie in one piece in each row.

    Raises:
        BackboneError: If there is no mask, and the configuration names no placeholders.
        ConfigurationError: If there is no mask, and the placeholders of a row lie in several pieces.
    """

    def __init__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        config: StormConfig,
        clip_token_mask: torch.Tensor | None = None,
    ) -> None:
        is_clip = _clip_of_ids(input_ids, config) if clip_token_mask is None else clip_token_mask.bool()  # (B, S)
        is_left_out = is_clip if attention_mask is None else is_clip | (attention_mask == 0)
        order = is_left_out.int().argsort(dim=1, descending=True, stable=True)  # what is left out comes first
        self.columns = order[:, int(is_left_out.sum(dim=1).min()) :]  # (B, T)
        self.is_padding = is_left_out.gather(1, self.columns)
        self.input_ids = self._take(input_ids, getattr(config.get_text_config(), "pad_token_id", None) or 0)
        self.attention_mask = (~self.is_padding).long()

    def replace(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Model inputs without clips: no pixels and no features, all else as it was."""
        kept = {name: value for name, value in inputs.items() if not name.startswith(CLIP_INPUTS)}
        tokens = {name: self._take(kept[name]) for name in PER_TOKEN_INPUTS if kept.get(name) is not None}
        return {**kept, **tokens, "input_ids": self.input_ids, "attention_mask": self.attention_mask}

    def put(self, found: torch.Tensor, states: torch.Tensor, is_bottlenecked: torch.Tensor) -> torch.Tensor:
        """Put what was `found` without the clip (B, T, D) into `states` (B, S, D), in the bottlenecked rows (B,)."""
        is_put = is_bottlenecked[:, None] & ~self.is_padding
        columns = self.columns[:, :, None].expand_as(found)
        return states.scatter(1, columns, torch.where(is_put[:, :, None], found, states.gather(1, columns)))

    def _take(self, values: torch.Tensor, padding: int = 0) -> torch.Tensor:
        return values.gather(1, self.columns).masked_fill(self.is_padding, padding)


def _clip_of_ids(input_ids: torch.Tensor, config: StormConfig) -> torch.Tensor:
    """Mark the placeholders of each row, which are all of its clip as long as they lie in one piece."""
    if not config.vision_token_ids:
        raise BackboneError(
            "`latent_bottleneck` takes a clip out of its prompt, but this backbone's configuration names no token that stands for "
            "a video or an image. Pass `clip_token_mask`, True where a token is the clip's."
        )
    is_clip = torch.isin(input_ids, input_ids.new_tensor(config.vision_token_ids))  # (B, S)
    num_pieces = is_clip[:, 0].int() + (is_clip[:, 1:] & ~is_clip[:, :-1]).sum(dim=1)  # (B,)
    if bool((num_pieces > 1).any()):
        raise ConfigurationError(
            "`latent_bottleneck` takes a clip out of its prompt. Expected its placeholders in one piece, got "
            f"{num_pieces.tolist()} pieces in the rows of `input_ids`: times, frame numbers or markers lie between them, or the words "
            "of a question about several clips, and ids alone do not tell these apart. Pass `clip_token_mask`, True where the "
            "processor wrote something for a clip; `PromptEncoder` makes it."
        )
    return is_clip


def refuse_single_patch(inputs: dict[str, Any], clip_token_mask: torch.Tensor | None) -> None:
    """Refuse a clip of one temporal patch without its mask: in one piece on every backbone, it may yet have a time before it.

    Args:
        inputs (`dict`):
            Pixels, or the grids of cached features.
        clip_token_mask (`torch.BoolTensor`, *optional*):
            See [`ClipFreeRows`].

    Raises:
        ConfigurationError: If there is such a clip, and no mask.
    """
    if clip_token_mask is not None:
        return
    grid, pixels = inputs.get("video_grid_thw"), inputs.get("pixel_values_videos", inputs.get("pixel_values"))
    is_single = False
    if grid is not None:  # (number of clips, 3)
        is_single = bool((grid[:, 0] == 1).any())
    elif pixels is not None and pixels.ndim == 5:  # frames are the second axis
        is_single = pixels.shape[1] == 1
    if is_single:
        raise ConfigurationError(
            "`latent_bottleneck` takes a clip out of its prompt. Expected clips of several frames, got one whose frames are one "
            "temporal patch: ids alone do not tell whether a time was written before it. Pass `clip_token_mask`, True where the "
            "processor wrote something for a clip; `PromptEncoder` makes it."
        )


def answer_without_clip(
    think: LatentForward,
    latent_bottleneck: torch.Tensor | bool,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor,
    inputs: dict[str, Any],
    clip_token_mask: torch.Tensor | None = None,
) -> StormModelOutput:
    """Think with the clip, then read the prompt without it and with the latents given.

    All rows are read a second time, so that processes which share weights run the same layers, whichever rows are bottlenecked.

    Args:
        think ([`LatentForward`]):
            The first pass.
        latent_bottleneck (`bool` or `torch.BoolTensor` of shape `(batch_size,)`):
            For all rows, or for each.
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
            The whole prompts, and in training the answers.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 where a token is.
        position_ids (`torch.LongTensor`):
            Of the first pass. The second has its own: there is less to count.
        inputs (`dict`):
            All else that the backbone takes, pixels among it.
        clip_token_mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
            See [`ClipFreeRows`].

    Returns:
        [`StormModelOutput`]: Of the first pass; in bottlenecked rows, the last hidden states of all tokens but the clip's are those of the
        second. Without a cache: going on from it would show the clip.

    Raises:
        ConfigurationError: If the thought goes on from a cache, or if there is not one value for each row, or if ids
            alone do not tell what was written for a clip.
    """
    if think.cache is not None:
        raise ConfigurationError(
            "`latent_bottleneck` reads the whole prompt a second time without its clip, so no cache can be gone on from. Leave "
            "`cache` out, and let `generate(latent_bottleneck=True)` write the answer."
        )
    is_bottlenecked = _bottlenecked_rows(latent_bottleneck, input_ids)
    refuse_single_patch(inputs, clip_token_mask)
    rows = ClipFreeRows(input_ids, attention_mask, think.config, clip_token_mask)
    without_clip = rows.replace(inputs)
    output = think(input_ids, attention_mask, position_ids, False, inputs)
    answer = think.model.forward(**without_clip, forced_latents=think.fed_latents, use_cache=False)
    assert output.last_hidden_state is not None
    output.last_hidden_state = rows.put(answer.last_hidden_state, output.last_hidden_state, is_bottlenecked)
    return output


def _bottlenecked_rows(latent_bottleneck: torch.Tensor | bool, input_ids: torch.Tensor) -> torch.Tensor:
    is_bottlenecked = torch.as_tensor(latent_bottleneck, dtype=torch.bool, device=input_ids.device)
    if is_bottlenecked.ndim > 1 or (is_bottlenecked.ndim == 1 and len(is_bottlenecked) != len(input_ids)):
        raise ConfigurationError(
            f"`latent_bottleneck` must be True, False, or one of them for each of {len(input_ids)} rows, got the shape "
            f"{tuple(is_bottlenecked.shape)}."
        )
    return is_bottlenecked.expand(len(input_ids))


__all__ = ["ClipFreeRows"]
