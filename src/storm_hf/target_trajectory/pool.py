"""Features of a thought video into the K slots of a target trajectory.

Axes: B batch, T temporal patches, C cells of a temporal patch, D hidden size, K latent steps, F features of a slot.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F

from storm_hf.errors import LatentError


Pooling = Literal["temporal", "sequence"]
Layout = Literal["average", "concat"]
Features: TypeAlias = torch.Tensor | np.ndarray | Sequence[torch.Tensor] | Sequence[np.ndarray]


def pool_to_trajectory(
    features: torch.Tensor, num_latents: int, *, pooling: Pooling = "temporal", layout: Layout = "average"
) -> torch.Tensor:
    """Average the features of a thought video into one vector per latent step.

    Where time does not divide into K slots, slots share the patches at their borders; where there are fewer patches than
    slots, patches repeat. That is the rule of `torch.nn.AdaptiveAvgPool1d`.

    Args:
        features (`torch.Tensor` of shape `(batch_size, num_temporal_patches, num_cells, hidden_size)`):
            Tokens of the vision tower and merger in the order time, height, width.
        num_latents (`int`):
            Number K of slots.
        pooling (`str`, *optional*, defaults to `"temporal"`):
            `temporal` splits time into slots, so that a slot is a moment. `sequence` splits the flat sequence of tokens,
            as the paper does: with fewer patches than slots, a slot is a part of the picture.
        layout (`str`, *optional*, defaults to `"average"`):
            Spatial layout of a slot: `average` forgets where things are, `concat` keeps the cells side by side,
            for worlds whose state is a layout. Only `temporal` has a layout.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_latents, slot_size)`: In float32. `slot_size` is `hidden_size`, or
        `num_cells * hidden_size` for `concat`.

    Raises:
        LatentError: If the features do not have four axes, one of them is empty, there is no slot, or pooling and
            layout are not as above.
    """
    check_pooling(num_latents, pooling, layout)
    if features.ndim != 4 or features.numel() == 0:
        raise LatentError(
            "Expected features of shape (batch, temporal patches, cells, hidden size), none of them zero, but got "
            f"{tuple(features.shape)}. Encode thought videos with `encode_frames`, and stack those of one shape."
        )
    features = features.float()
    if pooling == "sequence":
        moments = features.flatten(1, 2)  # (B, T * C, D)
    elif layout == "concat":
        moments = features.flatten(2)  # (B, T, C * D)
    else:
        moments = features.mean(dim=2)  # (B, T, D)
    return F.adaptive_avg_pool1d(moments.transpose(1, 2), num_latents).transpose(1, 2).contiguous()  # (B, K, F)


def as_clips(features: Features) -> list[torch.Tensor]:
    """Take any form of features apart into one tensor (T, C, D) per clip; a single clip makes a list of one.

    Raises:
        LatentError: If a clip has none, or they are not clips of three axes.
    """
    if isinstance(features, (torch.Tensor, np.ndarray)):
        features = features[None] if features.ndim == 3 else features
    if empty := [place for place, clip in enumerate(features) if clip is None]:
        raise LatentError(
            f"Expected features of a thought video in each of {len(features)} rows, got none in {len(empty)}, the first at position "
            f"{empty[0]}. Leave these rows out, or build the data set again."
        )
    clips = [clip if isinstance(clip, torch.Tensor) else torch.tensor(clip) for clip in features]
    if not clips or any(clip.ndim != 3 for clip in clips):
        shapes = sorted({tuple(clip.shape) for clip in clips})
        raise LatentError(
            f"Expected clips of shape (temporal patches, cells, hidden size) but got {shapes or 'none'}."
        )
    return clips


def pool_clips(
    clips: Sequence[torch.Tensor] | Sequence[np.ndarray],
    num_latents: int,
    *,
    pooling: Pooling = "temporal",
    layout: Layout = "average",
) -> torch.Tensor:
    """Pool clips (T, C, D) that may differ in length into (B, K, F), those of one shape together.

    Raises:
        LatentError: As `pool_to_trajectory`, and if the slots of the clips differ in size.
    """
    clips = as_clips(clips)
    if len({clip.shape for clip in clips}) == 1:
        return pool_to_trajectory(torch.stack(clips), num_latents, pooling=pooling, layout=layout)
    pooled = [pool_to_trajectory(clip[None], num_latents, pooling=pooling, layout=layout) for clip in clips]
    if len({one.shape for one in pooled}) > 1:
        raise LatentError(
            f"Clips of {sorted({tuple(clip.shape) for clip in clips})} (temporal patches, cells, hidden size) do not make "
            "slots of one size. Encode them at one resolution, or use layout='average'."
        )
    return torch.cat(pooled)


def check_pooling(num_latents: int, pooling: str, layout: str) -> None:
    """Make sure that a trajectory can be pooled as asked.

    Raises:
        LatentError: If it cannot.
    """
    if num_latents < 1:
        raise LatentError(f"Expected num_latents of 1 or more but got {num_latents}.")
    if pooling not in get_args(Pooling):
        raise LatentError(f"Expected pooling {' or '.join(get_args(Pooling))} but got {pooling!r}.")
    if layout not in get_args(Layout):
        raise LatentError(f"Expected layout {' or '.join(get_args(Layout))} but got {layout!r}.")
    if pooling == "sequence" and layout == "concat":
        raise LatentError(
            "Sequence pooling mixes the cells of a slot, so they have no layout to keep. Use layout='average', or "
            "pooling='temporal' with layout='concat'."
        )
