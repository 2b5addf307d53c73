"""`storm imagine` as a function: train a decoder if there is none, answer, render, and write the page.

Axes: N pairs of target and frame, B batch, D hidden size, H height, W width, in pixels.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from storm_hf.diagnostics.latent_decoder.decoder import FOLDER, DecoderConfig, ThoughtDecoder
from storm_hf.diagnostics.latent_decoder.imagine import Imagination, states_drawn_right
from storm_hf.diagnostics.latent_decoder.pictures import Scene, gallery_section, imagine_page, write_gif
from storm_hf.diagnostics.latent_decoder.renderer import (
    LatentRenderer,
    Progress,
    RenderedRows,
    Rows,
    read_first,
    silent,
)
from storm_hf.diagnostics.latent_decoder.steps import ThoughtSteps, fingerprint
from storm_hf.errors import DatasetError, StaleWorkError
from storm_hf.evaluation.batch import accuracy
from storm_hf.reporting import write_atomically
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.video import write_video
from storm_hf.worlds import world_of_clip


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


@dataclass(frozen=True)
class ImaginationReport:
    """Results of `storm imagine`; `imagine.json` is the same.

    Args:
        explained (`float`):
            Share of the variance of held-out thought frames that the decoder draws of true targets.
        accuracy (`float`):
            Of the model's answers.
        num_read (`int`):
            Questions answered.
        num_frames (`int`):
            Latents drawn.
        drawn_right (`float`, *optional*):
            Share of drawn frames in which the world reads the true state. None where no world drew the clips.
        most_frequent (`float`, *optional*):
            Accuracy of always naming the most frequent state.
    """

    explained: float
    accuracy: float
    num_read: int
    num_frames: int
    drawn_right: float | None
    most_frequent: float | None


def decoder_of(
    checkpoint: Path,
    trajectory: TargetTrajectory,
    splits: Mapping[str, Rows],
    *,
    num_train: int = 1000,
    num_held_out: int = 64,
    training: DecoderTraining | None = None,
    progress: Progress = silent,
) -> ThoughtDecoder:
    """Load the decoder of a checkpoint, or train one and save it there.

    Args:
        checkpoint (`Path`):
            Its folder; the decoder lies in `decoder/`.
        trajectory ([`TargetTrajectory`]):
            The space of its latents.
        splits (`Mapping[str, Rows]`):
            `train` teaches; `validation`, or the first other split, is held out.
        num_train (`int`, *optional*, defaults to `1000`):
            Thought videos to learn from at most.
        num_held_out (`int`, *optional*, defaults to `64`):
            Thought videos held out at most.
        training ([`DecoderTraining`], *optional*):
            Settings of the training.
        progress (`Callable`, *optional*):
            Shows progress bars.

    Raises:
        StaleWorkError: If the decoder there belongs to other targets.
        DatasetError: If there is no training split and another one.
    """
    targets = fingerprint(trajectory)
    decoder = ThoughtDecoder.load(checkpoint)
    if decoder is not None:
        if decoder.config.targets != targets:
            raise StaleWorkError(
                f"{checkpoint / FOLDER} draws the targets {decoder.config.targets}, but this model was aligned to {targets}. "
                "Delete that folder, and a decoder is trained anew."
            )
        return decoder
    training = training or DecoderTraining()
    train, held_out = (
        read_first(rows, count, trajectory, progress)
        for rows, count in ((_split(splits, "train"), num_train), (held_out_split(splits), num_held_out))
    )
    with progress("Training the decoder", training.num_updates) as count_up:
        decoder = train_decoder(train, held_out, targets=targets, training=training, on_update=count_up)
    decoder.save(checkpoint)
    return decoder


def imagine_rows(
    renderer: LatentRenderer,
    rows: Rows,
    known: Rows,
    out: Path,
    *,
    name: str,
    command: str,
    num_scenes: int = 4,
    progress: Progress = silent,
) -> ImaginationReport:
    """Answer, draw, and write films, pictures, `imagine.html` and `imagine.json`.

    Args:
        renderer ([`LatentRenderer`]):
            The model and what draws its latents.
        rows (`Rows`):
            Questions, each with clip and thought video.
        known (`Rows`):
            Others, whose thoughts the latents are compared with; the first 256 of them.
        out (`Path`):
            Folder.
        name (`str`):
            Name of the model on the page.
        command (`str`):
            Command that reproduces the page.
        num_scenes (`int`, *optional*, defaults to `4`):
            Rows, from the first, that are shown.
        progress (`Callable`, *optional*):
            Shows progress bars.
    """
    rendered = renderer.render(rows, known, progress)
    scenes = rendered.scenes(num_scenes)
    films = [
        _write_scene(out, number, scene, one)
        for number, (scene, one) in enumerate(zip(scenes, rendered.imagined, strict=False))
    ]
    report = _measure(rendered, renderer.decoder)
    page = imagine_page(
        gallery_section(scenes, films),
        model=name,
        command=command,
        num_latents=renderer.trajectory.num_latents,
        **asdict(report),
    )
    write_atomically(out / "imagine.json", json.dumps(asdict(report), indent=2) + "\n")
    write_atomically(out / "imagine.html", page)
    return report


def held_out_split(splits: Mapping[str, Rows]) -> Rows:
    """Rows that neither the model nor its decoder learned from: `validation`, or the first split besides `train`.

    Raises:
        DatasetError: If there is no such split.
    """
    names = [name for name in splits if name != "train"]
    if not names:
        raise DatasetError("Expected a split besides `train`, to hold out, but there is none. Build `validation` too.")
    return splits["validation" if "validation" in names else names[0]]


def _split(splits: Mapping[str, Rows], name: str) -> Rows:
    if name not in splits:
        raise DatasetError(f"Expected a split {name!r} to train a decoder on but got {', '.join(splits)}.")
    return splits[name]


def _write_scene(out: Path, number: int, scene: Scene, imagination: Imagination) -> str:
    """Write the film as mp4 and GIF and the drawn frames as one picture; return the name of the film."""
    film = write_video(out / f"film_{number}.mp4", scene.film, fps=scene.fps)
    write_gif(out / f"film_{number}.gif", scene.film, fps=scene.fps)
    Image.fromarray(np.concatenate(list(imagination.frames), axis=0)).save(out / f"imagined_{number}.png")
    return film.name


def _measure(rendered: RenderedRows, decoder: ThoughtDecoder) -> ImaginationReport:
    rows, imagined = rendered.rows, rendered.imagined
    world = world_of_clip(str(rows[0]["thought_video"]))
    frames = [one.frames for one in imagined]
    drawn = (None, None) if world is None else states_drawn_right(world, frames, rendered.steps.states)
    return ImaginationReport(
        explained=decoder.config.explained or 0.0,
        accuracy=accuracy([one.answer for one in imagined], rows),
        num_read=len(rows),
        num_frames=sum(len(one) for one in frames),
        drawn_right=drawn[0],
        most_frequent=drawn[1],
    )
