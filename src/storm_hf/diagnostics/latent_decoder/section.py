"""Section of a page with the rendered latents: clip, true, rendered and nearest known thoughts, step by step.

Axes: N rows, K latent steps, D hidden size, H height, W width, in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storm_hf.diagnostics.latent_decoder.imagine import Imagination
from storm_hf.diagnostics.latent_decoder.pictures import Plane, path_chart, thought_film
from storm_hf.diagnostics.latent_decoder.steps import ThoughtSteps
from storm_hf.evaluation.thought_gallery import ThoughtGallery
from storm_hf.optional import require
from storm_hf.reporting import frame_data_uri, render_page
from storm_hf.video import read_video


_TEMPLATES = "storm_hf.diagnostics.latent_decoder"


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
