"""Video features as flat tensors, so that a frozen vision tower runs once and its output travels in ordinary batches.

A collator must not pass a `ModelOutput`: pinning, dispatching and DeepSpeed's cast take tensors only. So a batch carries
`video_features` and, for backbones that inject deep features, `video_deepstack`; this file turns them into the encoder output
that a backbone takes, and back.

Axes: N video tokens of the whole batch, D hidden size, L deepstack layers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import ModelOutput

from .errors_storm import BackboneError, ConfigurationError


_GRIDS = ("video_grid_thw", "image_grid_thw")


@dataclass
class VideoFeatures(ModelOutput):
    """Features of an encoded video, as a backbone reads them.

    Args:
        pooler_output (`tuple[torch.Tensor]`):
            One tensor of shape `(num_tokens, hidden_size)` per video.
        deepstack_features (`list[tuple[torch.Tensor]]`, *optional*):
            The same per deepstack layer.
    """

    pooler_output: tuple[torch.Tensor, ...] | None = None
    deepstack_features: list[tuple[torch.Tensor, ...]] | None = None


def unflatten_features(
    video_features: torch.Tensor,
    video_grid_thw: torch.Tensor | None,
    video_deepstack: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, VideoFeatures]:
    """Split flat features by video, in the form of a backbone's `mm_encoder_outputs`.

    Args:
        video_features (`torch.Tensor` of shape `(num_tokens, hidden_size)`):
            Features of all videos of the batch, one after the other.
        video_grid_thw (`torch.LongTensor` of shape `(num_videos, 3)`):
            Temporal, height and width patches of each video, before merging.
        video_deepstack (`torch.Tensor` of shape `(num_layers, num_tokens, hidden_size)`, *optional*):
            Deepstack features in the same order.
        dtype (`torch.dtype`, *optional*):
            Type to cast them to, that of the token embeddings: features are stored in float16, which autocast to bfloat16 does
            not take on a CPU. By default their own.

    Raises:
        BackboneError: If there is no grid, or the tokens are not shared out evenly by it.
    """
    if video_grid_thw is None:
        raise BackboneError(
            "Cached `video_features` need `video_grid_thw` beside them; backbones without video grids read pixels."
        )
    video_features = video_features.to(dtype=dtype)
    video_deepstack = None if video_deepstack is None else video_deepstack.to(dtype=dtype)
    patches = video_grid_thw.prod(dim=-1)
    merged, rest = divmod(int(patches.sum()), len(video_features))
    if rest:
        raise BackboneError(
            f"Expected cached video features for the grids {video_grid_thw.tolist()}, got {len(video_features)} tokens. "
            "Encode the videos again with the vision tower of this backbone."
        )
    sizes = (patches // merged).tolist()
    deepstack = None if video_deepstack is None else [layer.split(sizes) for layer in video_deepstack]
    return {"video": VideoFeatures(pooler_output=video_features.split(sizes), deepstack_features=deepstack)}


def flatten_features(encoded: ModelOutput) -> dict[str, torch.Tensor]:
    """Concatenate a backbone's encoded videos to the flat tensors that a batch carries."""
    flat = {"video_features": torch.cat(list(encoded.pooler_output))}  # (N, D)
    if (deepstack := getattr(encoded, "deepstack_features", None)) is not None:
        flat["video_deepstack"] = torch.stack([torch.cat(list(layer)) for layer in deepstack])  # (L, N, D)
    return flat


def to_float16(features: torch.Tensor) -> torch.Tensor:
    """Bring features of a vision tower to the type that data sets store them in.

    Raises:
        BackboneError: If some are not finite in it.
    """
    half = features.to(device="cpu", dtype=torch.float16)
    if not half.isfinite().all():
        raise BackboneError(
            "Expected features of the vision tower that are finite in float16 but some are not. Load the backbone in "
            "another dtype, and check its weights."
        )
    return half


def prepare_positions(backbone: Any, input_ids: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """Have a backbone prepare the positions of a whole sequence, as it does for generation.

    Args:
        backbone ([`~transformers.PreTrainedModel`]):
            The wrapped video-language model.
        input_ids (`torch.Tensor`):
            Tokens of shape `(batch_size, sequence_length)`, or their embeddings.
        inputs (`dict`):
            Everything else that the backbone is given.

    Raises:
        ConfigurationError: If the prompts show more videos or pictures than there are grids.
    """
    try:
        return backbone._prepare_position_ids_for_generation(input_ids, inputs)
    except StopIteration as error:  # Qwen's code takes the next grid at each video, and at each picture
        found = [f"{len(inputs[name])} in `{name}`" for name in _GRIDS if inputs.get(name) is not None]
        raise ConfigurationError(
            f"Expected a grid for each video and picture of the prompts ({len(input_ids)}), got {' and '.join(found) or 'none'}. "
            "Give each prompt its own: repeat pixels and grids with the tokens, or encode all prompts in one call of the processor."
        ) from error
