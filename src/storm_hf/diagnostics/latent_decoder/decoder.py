"""A small network that draws a latent: from the space of target trajectories back to a picture.

It learns from true targets and their thought frames only, so that what it draws of a model's own latent is what that latent says.

Axes: N latents, D hidden size, H height, W width of a picture, in pixels.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from storm_hf.atomic import written_atomically
from storm_hf.errors import CheckpointError, LatentError
from storm_hf.reporting import write_atomically


FOLDER = "decoder"
PATCH_PX = 8
_WEIGHTS, _CONFIG = "decoder.safetensors", "config.json"


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of a decoder: its latents and its pictures.

    Args:
        latent_size (`int`):
            Hidden size D of the latents.
        height (`int`):
            Of a picture, in pixels, a multiple of 8.
        width (`int`):
            Of a picture, in pixels, a multiple of 8.
        targets (`str`):
            Fingerprint of the target trajectory whose space it reads.
        hidden_size (`int`, *optional*, defaults to `512`):
            Width of the layers before the picture.
        num_channels (`int`, *optional*, defaults to `64`):
            Channels of a patch of 8 x 8 pixels.
        explained (`float`, *optional*):
            Share of the variance of held-out thought frames that it draws of their true targets; 0 is the mean picture.
    """

    latent_size: int
    height: int
    width: int
    targets: str
    hidden_size: int = 512
    num_channels: int = 64
    explained: float | None = None


class ThoughtDecoder(nn.Module):
    """Draws latents.

    Args:
        config ([`DecoderConfig`]):
            Its sizes.
    """

    mean_frame: torch.Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        num_patches = config.height * config.width // PATCH_PX**2
        self.layers = nn.Sequential(
            nn.Linear(config.latent_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.num_channels * num_patches),
            nn.Unflatten(1, (config.num_channels, config.height // PATCH_PX, config.width // PATCH_PX)),
            nn.GELU(),
            nn.Conv2d(config.num_channels, config.num_channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(config.num_channels, 3 * PATCH_PX**2, 1),
            nn.PixelShuffle(PATCH_PX),
        )
        self.register_buffer("mean_frame", torch.zeros(3, config.height, config.width))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Draw latents.

        Args:
            latents (`torch.Tensor` of shape `(num_latents, latent_size)`):
                In unit space, as the model predicts them.

        Returns:
            `torch.Tensor` of shape `(num_latents, 3, height, width)`: About 0 to 1, not clipped.

        Raises:
            LatentError: If the latents are of another size.
        """
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_size:
            raise LatentError(
                f"Expected latents of shape (number, {self.config.latent_size}) but got {tuple(latents.shape)}: this decoder "
                f"belongs to another model. Delete its folder `{FOLDER}` and train one."
            )
        return self.mean_frame + self.layers(latents)  # (N, 3, H, W)

    @torch.inference_mode()
    def draw(self, latents: np.ndarray) -> np.ndarray:
        """Draw latents of shape `(..., latent_size)` as pictures of shape `(..., height, width, 3)`, `uint8`."""
        flat = torch.from_numpy(latents.astype(np.float32).reshape(-1, latents.shape[-1])).to(self.mean_frame.device)
        pixels = (self(flat).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return np.asarray(pixels.reshape(*latents.shape[:-1], *pixels.shape[1:]))

    def save(self, checkpoint: Path) -> Path:
        """Write the decoder into the folder `decoder` of a checkpoint; its configuration comes last."""
        folder = checkpoint / FOLDER
        with written_atomically(folder / _WEIGHTS) as unfinished:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, unfinished)
        write_atomically(folder / _CONFIG, json.dumps(asdict(self.config), indent=2) + "\n")
        return folder

    @classmethod
    def load(cls, checkpoint: Path) -> "ThoughtDecoder | None":
        """Read what `save` wrote; None if the checkpoint has no decoder.

        Raises:
            CheckpointError: If the decoder is damaged.
        """
        folder = checkpoint / FOLDER
        if not (folder / _CONFIG).is_file():
            return None
        try:
            decoder = cls(DecoderConfig(**json.loads((folder / _CONFIG).read_text(encoding="utf-8"))))
            decoder.load_state_dict(load_file(folder / _WEIGHTS))
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{folder} holds no whole decoder. Delete it; it is trained again in a minute."
            ) from error
        return decoder.eval()
