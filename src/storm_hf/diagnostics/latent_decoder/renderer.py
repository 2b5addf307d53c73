"""Renderer of rows: rendered latents beside true thoughts, and the known thoughts nearest to them."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from storm_hf.diagnostics.latent_decoder.decoder import ThoughtDecoder
from storm_hf.diagnostics.latent_decoder.imagine import Imagination, imagine
from storm_hf.diagnostics.latent_decoder.pictures import Plane, Scene, gallery_section, make_scene
from storm_hf.diagnostics.latent_decoder.steps import ThoughtSteps, read_steps
from storm_hf.evaluation.thought_gallery import ThoughtGallery
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.reporting import video_data_uri
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.video import write_video


Rows = Sequence[Mapping[str, Any]]
Progress = Callable[
    [str, int], AbstractContextManager[Callable[[], None]]
]  # a title and a total; yields what counts up

_MAX_KNOWN = 256  # thoughts that latents are compared with


def silent(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Show no progress."""
    return nullcontext(lambda: None)


@dataclass(frozen=True, eq=False)
class RenderedRows:
    """Rendered latents of some rows.

    Args:
        rows (`Rows`):
            The questions.
        imagined (`list[Imagination]`):
            Latents and answer of each row.
        steps ([`ThoughtSteps`]):
            True steps of each row.
        gallery ([`ThoughtGallery`]):
            Known thoughts of other rows.
    """

    rows: Rows
    imagined: list[Imagination]
    steps: ThoughtSteps
    gallery: ThoughtGallery

    def scenes(self, count: int) -> list[Scene]:
        """The first rows, ready to be shown."""
        plane = Plane.fit(self.gallery.latents)
        return [
            make_scene(row, self.imagined[index], self._steps_of(index), self.gallery, plane)
            for index, row in enumerate(self.rows[:count])
        ]

    def _steps_of(self, index: int) -> ThoughtSteps:
        return ThoughtSteps(self.steps.targets[[index]], self.steps.frames[[index]], [self.steps.states[index]])


@dataclass(frozen=True, eq=False)
class LatentRenderer:
    """A model with what draws its latents.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        decoder ([`ThoughtDecoder`]):
            Draws.
        trajectory ([`TargetTrajectory`]):
            The space of the latents.
    """

    model: StormForConditionalGeneration
    processor: ProcessorMixin
    decoder: ThoughtDecoder
    trajectory: TargetTrajectory

    def render(self, rows: Rows, known: Rows, progress: Progress = silent) -> RenderedRows:
        """Let the model answer, and draw.

        Args:
            rows (`Rows`):
                Questions, each with clip and thought video.
            known (`Rows`):
                Others, whose thoughts the latents are compared with; the first 256 of them.
            progress (`Callable`, *optional*):
                Shows progress bars.
        """
        pixels = self.decoder.config.height * self.decoder.config.width
        gallery = read_first(known, _MAX_KNOWN, self.trajectory, progress, max_pixels=pixels).gallery()
        steps = read_first(rows, len(rows), self.trajectory, progress, max_pixels=pixels)
        imagined = imagine(self.model, self.processor, rows, self.decoder, num_latents=self.trajectory.num_latents)
        return RenderedRows(rows, imagined, steps, gallery)

    def pictures(self, rows: Rows, known: Rows) -> Any:
        """Draw rows as a part of another page, its films inside it. Arguments as in `paint`.

        Returns:
            `markupsafe.Markup`: HTML that a template prints as it is.
        """
        scenes = self.render(rows, known).scenes(len(rows))
        with tempfile.TemporaryDirectory(prefix="storm-films-") as folder:
            films = [
                video_data_uri(write_video(Path(folder, f"{number}.mp4"), scene.film, fps=scene.fps))
                for number, scene in enumerate(scenes)
            ]
        return gallery_section(scenes, films)


def read_first(
    rows: Rows, count: int, trajectory: TargetTrajectory, progress: Progress, **options: Any
) -> ThoughtSteps:
    """Read the thought videos of the first rows. Options are those of [`read_steps`]."""
    count = min(count, len(rows))
    with progress("Reading thought videos", count) as count_up:
        return read_steps(_first(rows, count), trajectory, on_row=count_up, **options)


def _first(rows: Rows, count: int) -> Iterable[Mapping[str, Any]]:
    return (rows[index] for index in range(count))
