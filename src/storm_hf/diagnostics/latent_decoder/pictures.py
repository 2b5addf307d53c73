"""Pictures of rendered latents, and the section of a page that shows them: a film of clip, true thought and latent, each step beside
its true and its nearest known thought, and trajectories in a plane.

Axes: N rows, T frames, K latent steps, D hidden size, H height, W width, in pixels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from storm_hf.atomic import written_atomically
from storm_hf.diagnostics.latent_decoder.imagine import Imagination
from storm_hf.diagnostics.latent_decoder.steps import ThoughtSteps, last_frames, resize
from storm_hf.evaluation.thought_gallery import ThoughtGallery
from storm_hf.optional import require
from storm_hf.reporting import frame_data_uri, render_page, side_by_side
from storm_hf.target_trajectory.whiten import principal_components
from storm_hf.video import read_video


_HEIGHT_PX = 128
_GIF_SECONDS_PER_UNIT = 1000
_WIDE = 2.5  # times as wide as high
_NOTHING_YET = 48  # shade of a panel while the clip shows what precedes the first step
_TEMPLATES = "storm_hf.diagnostics.latent_decoder"


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


@dataclass(frozen=True)
class SceneStep:
    """One latent of a scene, as addresses of pictures and words.

    Args:
        true (`str`):
            The true thought frame.
        imagined (`str`):
            The latent, drawn.
        nearest (`str`):
            The thought frame of the gallery whose target is nearest.
        similarity (`float`):
            Cosine to that target.
        state (`str`):
            State of the nearest frame; empty where the data set knows no states.
        share (`float`):
            Share of the softmax over all cosines that falls on entries with that state.
    """

    true: str
    imagined: str
    nearest: str
    similarity: float
    state: str
    share: float


@dataclass(frozen=True, eq=False)
class Scene:
    """One question with all that can be seen of the thinking about it.

    Args:
        question (`str`):
            Question that was asked.
        answer (`str`):
            The correct answer.
        said (`str`):
            The model's.
        steps (`list[SceneStep]`):
            One for each latent.
        path (`str`):
            The trajectory in two dimensions, an `<svg>` element.
        film (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            Clip, true thought and imagined thought, as `thought_film` lays them, `uint8`.
        fps (`float`):
            Of the film.
    """

    question: str
    answer: str
    said: str
    steps: list[SceneStep]
    path: str
    film: np.ndarray
    fps: float


def make_scene(
    row: Mapping[str, Any], imagination: Imagination, steps: ThoughtSteps, gallery: ThoughtGallery, plane: Plane
) -> Scene:
    """Put together what is shown of one row.

    Args:
        row (`Mapping[str, Any]`):
            The question, with `video` and `thought_video`.
        imagination ([`Imagination`]):
            Latents of the model for it.
        steps ([`ThoughtSteps`]):
            Of this row alone.
        gallery ([`ThoughtGallery`]):
            Known thoughts.
        plane ([`Plane`]):
            In which the trajectory is drawn.

    Raises:
        VideoReadError: If clip or thought video cannot be read.
    """
    found = gallery.neighbours(imagination.latents, 1)
    drawn = zip(steps.frames[0], imagination.frames, found.index[:, 0].tolist(), strict=True)
    scene_steps = [
        SceneStep(
            true=frame_data_uri(true, 2),
            imagined=frame_data_uri(imagined, 2),
            nearest=frame_data_uri(gallery.frames[index]),
            similarity=float(found.similarity[number, 0]),
            state=str(found.state[number]),
            share=float(found.share[number]),
        )
        for number, (true, imagined, index) in enumerate(drawn)
    ]
    thought = read_video(str(row["thought_video"]))
    return Scene(
        question=str(row["question"]),
        answer=str(row["answer"]),
        said=imagination.answer.text,
        steps=scene_steps,
        path=path_chart(
            plane, gallery.latents, steps.targets[0], imagination.latents, title="True and imagined trajectory"
        ),
        film=thought_film(read_video(str(row["video"])).frames, thought.frames, imagination.frames),
        fps=float(row.get("thought_fps") or 2.0) * len(imagination.frames) / len(thought.frames),
    )


def gallery_section(scenes: Sequence[Scene], films: Sequence[str]) -> Any:
    """Show scenes as a part of a page that extends `page.html.j2`.

    Args:
        scenes (`Sequence[Scene]`):
            Scenes to show.
        films (`Sequence[str]`):
            Address of the film of each, a file's name or what `video_data_uri` makes.

    Returns:
        `markupsafe.Markup`: HTML that a template prints as it is.

    Raises:
        DependencyError: If jinja2 is not installed.
    """
    markup = require("jinja2").utils.markupsafe.Markup
    html = render_page(_TEMPLATES, "scenes.html.j2", scenes=list(zip(scenes, films, strict=True)), markup=markup)
    return markup(html)


def imagine_page(section: object, **values: object) -> str:
    """Fill in the page of `storm imagine`. Values are those of its template."""
    return render_page(_TEMPLATES, "imagine.html.j2", section=section, **values)
