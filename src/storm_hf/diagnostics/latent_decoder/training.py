"""Training of the decoder: true targets in, thought frames out, a minute on a processor core.

Axes: N pairs of target and frame, B batch, D hidden size, H height, W width, in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from storm_hf.diagnostics.latent_decoder.decoder import DecoderConfig, ThoughtDecoder
from storm_hf.diagnostics.latent_decoder.steps import ThoughtSteps


@dataclass(frozen=True)
class DecoderTraining:
    """Settings of the training of a decoder.

    Args:
        num_updates (`int`, *optional*, defaults to `500`):
            Optimizer updates.
        batch_size (`int`, *optional*, defaults to `64`):
            Frames of an update.
        learning_rate (`float`, *optional*, defaults to `2e-3`):
            Its peak; it falls along a cosine.
        noise (`float`, *optional*, defaults to `0.3`):
            Standard deviation of noise on the targets, beside their unit root mean square: latents of a model are never exact.
        seed (`int`, *optional*, defaults to `0`):
            Of weights, order and noise.
    """

    num_updates: int = 500
    batch_size: int = 64
    learning_rate: float = 2e-3
    noise: float = 0.3
    seed: int = 0


def train_decoder(
    steps: ThoughtSteps,
    held_out: ThoughtSteps,
    *,
    targets: str,
    training: DecoderTraining | None = None,
    on_update: Callable[[], None] | None = None,
) -> ThoughtDecoder:
    """Train a decoder on true targets and their frames; it never sees a model's own latents.

    Args:
        steps ([`ThoughtSteps`]):
            Of the training split.
        held_out ([`ThoughtSteps`]):
            Of another split: how well their frames are drawn is written into the configuration.
        targets (`str`):
            Fingerprint of the target trajectory.
        training ([`DecoderTraining`], *optional*):
            Settings of the training.
        on_update (`Callable[[], None]`, *optional*):
            Called after each update. Progress bars use it.

    Returns:
        [`ThoughtDecoder`]: In evaluation mode.
    """
    training = training or DecoderTraining()
    height, width = steps.frames.shape[2:4]
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        decoder = ThoughtDecoder(DecoderConfig(steps.targets.shape[2], height, width, targets))
    latents, frames = _pairs(steps)
    decoder.mean_frame.copy_(frames.float().mean(dim=0) / 255)
    _fit(decoder, latents, frames, training, on_update)
    decoder.config = replace(decoder.config, explained=_explained_variance(decoder, held_out))
    return decoder.eval()


def _explained_variance(decoder: ThoughtDecoder, steps: ThoughtSteps) -> float:
    """Share of the variance of frames around the decoder's mean frame that it draws of their true targets."""
    drawn = decoder.draw(steps.targets).astype(np.float32) / 255
    frames = steps.frames.astype(np.float32) / 255
    mean = decoder.mean_frame.permute(1, 2, 0).numpy()
    around_mean = ((frames - mean) ** 2).mean()
    return float(1 - ((frames - drawn) ** 2).mean() / max(around_mean, 1e-12))


def _fit(
    decoder: ThoughtDecoder,
    latents: torch.Tensor,
    frames: torch.Tensor,
    training: DecoderTraining,
    on_update: Callable[[], None] | None,
) -> None:
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=training.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.num_updates)
    generator = torch.Generator().manual_seed(training.seed)
    for _ in range(training.num_updates):
        chosen = torch.randint(len(latents), (training.batch_size,), generator=generator)
        fed = latents[chosen]
        fed = fed + training.noise * torch.randn(fed.shape, generator=generator)  # (B, D)
        loss = F.mse_loss(decoder(fed), frames[chosen].float() / 255)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if on_update is not None:
            on_update()


def _pairs(steps: ThoughtSteps) -> tuple[torch.Tensor, torch.Tensor]:
    latents = torch.from_numpy(steps.targets.reshape(-1, steps.targets.shape[2]))
    frames = torch.from_numpy(steps.frames.reshape(-1, *steps.frames.shape[2:])).permute(0, 3, 1, 2)
    return latents, frames  # (N, D), (N, 3, H, W)
