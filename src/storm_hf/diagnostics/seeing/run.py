"""`storm imagine` as a function: train a decoder if there is none, let the model answer, draw, and write what there is to see."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import ProcessorMixin

from storm_hf.diagnostics.retrieval import ThoughtGallery
from storm_hf.diagnostics.seeing.decoder import FOLDER, ThoughtDecoder
from storm_hf.diagnostics.seeing.film import write_gif
from storm_hf.diagnostics.seeing.imagine import Imagination, imagine, states_drawn_right
from storm_hf.diagnostics.seeing.plane import Plane
from storm_hf.diagnostics.seeing.section import Scene, gallery_section, imagine_page, make_scene
from storm_hf.diagnostics.seeing.steps import ThoughtSteps, fingerprint, read_steps
from storm_hf.diagnostics.seeing.training import DecoderTraining, train_decoder
from storm_hf.errors import DatasetError, StaleWorkError
from storm_hf.evaluation.answering import accuracy
from storm_hf.model.modeling_storm import StormForConditionalGeneration
from storm_hf.reporting import video_data_uri, write_atomically
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.video import write_video
from storm_hf.worlds import world_of_clip


Rows = Sequence[Mapping[str, Any]]
Progress = Callable[
    [str, int], AbstractContextManager[Callable[[], None]]
]  # a title and a total; yields what counts up


_MAX_KNOWN = 256  # thoughts that latents are compared with


def silent(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Show no progress."""
    return nullcontext(lambda: None)


@dataclass(frozen=True)
class ImaginationReport:
    """What `storm imagine` found; `imagine.json` is the same.

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
            What always naming the most frequent state would reach.
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
            How.
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
        _read(rows, count, trajectory, progress)
        for rows, count in ((_split(splits, "train"), num_train), (held_out_split(splits), num_held_out))
    )
    with progress("Training the decoder", training.num_updates) as count_up:
        decoder = train_decoder(train, held_out, targets=targets, training=training, on_update=count_up)
    decoder.save(checkpoint)
    return decoder


def imagine_rows(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    decoder: ThoughtDecoder,
    trajectory: TargetTrajectory,
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
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        decoder ([`ThoughtDecoder`]):
            Draws.
        trajectory ([`TargetTrajectory`]):
            The space of the latents.
        rows (`Rows`):
            Questions, each with clip and thought video.
        known (`Rows`):
            Others, whose thoughts the latents are compared with; the first 256 of them.
        out (`Path`):
            Folder.
        name (`str`):
            What the page calls the model.
        command (`str`):
            What makes the page again.
        num_scenes (`int`, *optional*, defaults to `4`):
            Rows, from the first, that are shown.
        progress (`Callable`, *optional*):
            Shows progress bars.
    """
    pixels = decoder.config.height * decoder.config.width
    gallery = _read(known, _MAX_KNOWN, trajectory, progress, max_pixels=pixels).gallery()
    steps = _read(rows, len(rows), trajectory, progress, max_pixels=pixels)
    imagined = imagine(model, processor, rows, decoder, num_latents=trajectory.num_latents)
    scenes = _scenes(rows[:num_scenes], imagined, steps, gallery)
    films = [
        _write_scene(out, number, scene, one)
        for number, (scene, one) in enumerate(zip(scenes, imagined, strict=False))
    ]
    report = _measure(rows, imagined, steps, decoder)
    page = imagine_page(
        gallery_section(scenes, films),
        model=name,
        command=command,
        num_latents=trajectory.num_latents,
        **asdict(report),
    )
    write_atomically(out / "imagine.json", json.dumps(asdict(report), indent=2) + "\n")
    write_atomically(out / "imagine.html", page)
    return report


def pictures_for(
    model: StormForConditionalGeneration,
    processor: ProcessorMixin,
    decoder: ThoughtDecoder,
    trajectory: TargetTrajectory,
    rows: Rows,
    known: Rows,
) -> Any:
    """Draw rows as a part of another page, its films inside it.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model.
        processor ([`~transformers.ProcessorMixin`]):
            Its processor.
        decoder ([`ThoughtDecoder`]):
            Draws.
        trajectory ([`TargetTrajectory`]):
            The space of the latents.
        rows (`Rows`):
            Questions that are shown, each with clip and thought video.
        known (`Rows`):
            Others, whose thoughts the latents are compared with; the first 256 of them.

    Returns:
        `markupsafe.Markup`: HTML that a template prints as it is.
    """
    pixels = decoder.config.height * decoder.config.width
    gallery = _read(known, _MAX_KNOWN, trajectory, silent, max_pixels=pixels).gallery()
    steps = _read(rows, len(rows), trajectory, silent, max_pixels=pixels)
    imagined = imagine(model, processor, rows, decoder, num_latents=trajectory.num_latents)
    scenes = _scenes(rows, imagined, steps, gallery)
    with tempfile.TemporaryDirectory(prefix="storm-films-") as folder:
        films = [
            video_data_uri(write_video(Path(folder, f"{number}.mp4"), scene.film, fps=scene.fps))
            for number, scene in enumerate(scenes)
        ]
    return gallery_section(scenes, films)


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


def _read(rows: Rows, count: int, trajectory: TargetTrajectory, progress: Progress, **options: Any) -> ThoughtSteps:
    count = min(count, len(rows))
    with progress("Reading thought videos", count) as count_up:
        return read_steps(_first(rows, count), trajectory, on_row=count_up, **options)


def _first(rows: Rows, count: int) -> Iterable[Mapping[str, Any]]:
    return (rows[index] for index in range(count))


def _scenes(rows: Rows, imagined: list[Imagination], steps: ThoughtSteps, gallery: ThoughtGallery) -> list[Scene]:
    plane = Plane.fit(gallery.latents)
    return [
        make_scene(
            row,
            imagined[index],
            ThoughtSteps(steps.targets[[index]], steps.frames[[index]], [steps.states[index]]),
            gallery,
            plane,
        )
        for index, row in enumerate(rows)
    ]


def _write_scene(out: Path, number: int, scene: Scene, imagination: Imagination) -> str:
    """Write the film as mp4 and GIF and the drawn frames as one picture; return the name of the film."""
    film = write_video(out / f"film_{number}.mp4", scene.film, fps=scene.fps)
    write_gif(out / f"film_{number}.gif", scene.film, fps=scene.fps)
    Image.fromarray(np.concatenate(list(imagination.frames), axis=0)).save(out / f"imagined_{number}.png")
    return film.name


def _measure(
    rows: Rows, imagined: list[Imagination], steps: ThoughtSteps, decoder: ThoughtDecoder
) -> ImaginationReport:
    world = world_of_clip(str(rows[0]["thought_video"]))
    frames = [one.frames for one in imagined]
    right, most_frequent = (None, None) if world is None else states_drawn_right(world, frames, steps.states)
    return ImaginationReport(
        explained=decoder.config.explained or 0.0,
        accuracy=accuracy([one.answer for one in imagined], rows),
        num_read=len(rows),
        num_frames=sum(len(one) for one in frames),
        drawn_right=right,
        most_frequent=most_frequent,
    )
