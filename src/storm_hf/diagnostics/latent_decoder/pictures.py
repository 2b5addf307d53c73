"""Pictures of rendered latents: a film of clip, true thought and latent, and trajectories in a plane.

Axes: N rows, T frames, K latent steps, D hidden size, H height, W width, in pixels.
"""

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from storm_hf.atomic import written_atomically
from storm_hf.diagnostics.latent_decoder.steps import last_frames, resize
from storm_hf.reporting import side_by_side
from storm_hf.target_trajectory.whiten import principal_components


_HEIGHT_PX = 128
_GIF_SECONDS_PER_UNIT = 1000
_WIDE = 2.5  # times as wide as high
_NOTHING_YET = 48  # shade of a panel while the clip shows what precedes the first step


def thought_film(clip: np.ndarray, thought: np.ndarray, imagined: np.ndarray, height: int = _HEIGHT_PX) -> np.ndarray:
    """Lay clip, true thought and imagined thought side by side, or below each other if they are wide; one frame for each step.

    All three show the end of the step, since a latent stands for the last frame of its slot. Clip and thought video end
    together; a shorter clip holds its first frame. What a longer clip shows before the first step closes the film, with
    empty panels beside it: the film is a loop, and its first picture is a step.

    Args:
        clip (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Input clip, `uint8`.
        thought (`np.ndarray` of shape `(num_thought_frames, height, width, 3)`):
            True thought video.
        imagined (`np.ndarray` of shape `(num_latents, height, width, 3)`):
            Rendered latents.
        height (`int`, *optional*, defaults to `128`):
            Of each of the three, in pixels.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: Frames for `len(imagined)` steps, then the beginning of the clip.
    """
    ends = np.array(last_frames(len(thought), len(imagined)))  # (K,)
    num_before = len(clip) - len(thought)
    begin = clip[: max(0, num_before) : math.ceil(len(thought) / len(imagined))]
    films = (np.concatenate([clip[np.maximum(0, ends + num_before)], begin]), thought[ends], imagined)
    seen, true, drawn = (_to_height(film, height) for film in films)
    panels = (seen, _then_nothing(true, len(begin)), _then_nothing(drawn, len(begin)))
    return _stacked(*panels) if seen.shape[2] > _WIDE * height else side_by_side(side_by_side(*panels[:2]), panels[2])


def write_gif(path: Path, frames: np.ndarray, *, fps: float) -> Path:
    """Write frames (T, H, W, 3) as a GIF that plays for ever, complete or not at all."""
    pictures = [Image.fromarray(frame) for frame in frames]
    with written_atomically(path) as unfinished:
        pictures[0].save(
            unfinished,
            format="gif",
            save_all=True,
            append_images=pictures[1:],
            duration=round(_GIF_SECONDS_PER_UNIT / fps),
            loop=0,
        )
    return path


def _then_nothing(film: np.ndarray, num_frames: int) -> np.ndarray:
    empty = np.full((num_frames, *film.shape[1:]), _NOTHING_YET, dtype=np.uint8)
    return np.concatenate([film, empty])


def _stacked(*films: np.ndarray) -> np.ndarray:
    """Lay films (T, H, W, 3) below each other, all as wide as the first."""
    width = films[0].shape[2]
    first, *others = (
        film if film.shape[2] == width else np.stack([resize(frame, film.shape[1], width) for frame in film])
        for film in films
    )
    stacked = first.swapaxes(1, 2)
    for film in others:
        stacked = side_by_side(stacked, film.swapaxes(1, 2))
    return stacked.swapaxes(1, 2)


def _to_height(film: np.ndarray, height: int) -> np.ndarray:
    width = 2 * max(1, round(film.shape[2] * height / film.shape[1] / 2))  # even, as 4:2:0 video needs
    return np.stack([resize(frame, height, width) for frame in film])


_SIZE_PX, _MARGIN_PX = 320, 24
_COLOURS = {"true": "var(--neutral, #6c6c78)", "imagined": "var(--accent, #5a3fd4)"}


@dataclass(frozen=True, eq=False)
class Plane:
    """Two axes through the targets of a data set.

    Args:
        mean (`np.ndarray` of shape `(hidden_size,)`):
            Origin of the plane.
        axes (`np.ndarray` of shape `(hidden_size, 2)`):
            Principal components, each with its largest element positive.
        explained (`float`):
            Share of the variance that lies in the plane. Of whitened targets of rank r it is little more than 2 / r.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: float

    @classmethod
    def fit(cls, targets: np.ndarray) -> "Plane":
        """Find the plane of targets of shape `(..., hidden_size)`.

        Raises:
            LatentError: If they are all the same.
        """
        flat = targets.reshape(-1, targets.shape[-1]).astype(np.float64)
        mean = flat.mean(axis=0)
        covariance = torch.from_numpy((flat - mean).T @ (flat - mean) / len(flat))
        variances, components = principal_components(covariance)
        return cls(mean, components[:, :2].numpy(), float(variances[:2].sum() / variances.sum()))

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Project latents of shape `(..., hidden_size)` to points of shape `(..., 2)`."""
        return np.asarray((latents.astype(np.float64) - self.mean) @ self.axes)


def path_chart(plane: Plane, targets: np.ndarray, true: np.ndarray, imagined: np.ndarray, *, title: str) -> str:
    """Draw the path of true targets and of imagined latents over the cloud of all targets.

    Args:
        plane ([`Plane`]):
            Plane of the projection.
        targets (`np.ndarray` of shape `(..., hidden_size)`):
            The cloud.
        true (`np.ndarray` of shape `(num_latents, hidden_size)`):
            Of the thought video.
        imagined (`np.ndarray` of shape `(num_latents, hidden_size)`):
            Of the model.
        title (`str`):
            Title of the chart, for screen readers.

    Returns:
        `str`: An `<svg>` element.
    """
    cloud = plane(targets).reshape(-1, 2)
    paths = {"true": plane(true), "imagined": plane(imagined)}
    everything = np.concatenate([cloud, *paths.values()])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = (_SIZE_PX - 2 * _MARGIN_PX) / np.maximum(high - low, 1e-9)

    def place(points: np.ndarray) -> np.ndarray:
        x, y = ((points - low) * scale + _MARGIN_PX).T
        return np.stack([x, _SIZE_PX - y], axis=1)

    parts = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="var(--quiet, #c9c9d3)"/>' for x, y in place(cloud)]
    for name, points in paths.items():
        parts.append(_path(place(points), _COLOURS[name]))
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {_SIZE_PX} {_SIZE_PX}" width="{_SIZE_PX}" height="{_SIZE_PX}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _path(points: np.ndarray, colour: str) -> str:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    numbers = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        f'<text x="{x + 6:.1f}" y="{y - 6:.1f}" font-size="12" fill="{colour}">{step}</text>'
        for step, (x, y) in enumerate(points, start=1)
    )
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>{numbers}'
