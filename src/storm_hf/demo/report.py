"""Report of a demo: `report.json`, and `report.html`, a page that explains the results."""

import os
from pathlib import Path

import numpy as np

from storm_hf.demo import figures
from storm_hf.demo.record import DemoReport, check_names
from storm_hf.demo.story import DemoStory, ExampleClip, ImaginedStep, Neighbour
from storm_hf.demo.verdict import judge
from storm_hf.errors import ReportError
from storm_hf.reporting import frame_data_uri, render_page, video_data_uri, write_atomically
from storm_hf.video import read_video
from storm_hf.worlds import format_question


def write_report(folder: str | os.PathLike[str], report: DemoReport, story: DemoStory) -> Path:
    """Write `report.json` and `report.html`, each complete or not at all.

    Args:
        folder (`str` or `os.PathLike`):
            Output folder of both files.
        report (`DemoReport`):
            The numbers.
        story (`DemoStory`):
            Contents of the page beyond the numbers.

    Returns:
        `Path`: The page. It needs no other file and no network.

    Raises:
        ReportError: If the story has no example or says nothing of an arm's training.
        VideoReadError: If a clip of an example cannot be read.
    """
    if not story.examples:
        raise ReportError("Expected at least one example clip to show but got none.")
    check_names("the story's training", story.training, tuple(figures.all_arms(report, story)))
    page = render_page("storm_hf.demo", "report.html.j2", **_page_values(report, story))
    write_atomically(Path(folder) / "report.json", report.to_json())
    return write_atomically(Path(folder) / "report.html", page)


def _page_values(report: DemoReport, story: DemoStory) -> dict[str, object]:
    return {
        "report": report,
        "story": story,
        "verdict": judge(report, story),
        "arms": figures.all_arms(report, story),
        "arm_label": figures.arm_label,
        "depths": sorted(report.by_depth, key=int),
        "films": _films(story.examples[0], story.frames_per_step),
        "asked": _asked(report, story.examples[0]),
        "examples": [(example, [_pictures(step) for step in example.steps]) for example in story.examples],
        "charts": {
            "by_depth": figures.accuracy_by_depth(report, story),
            "arms": figures.accuracy_of_arms(report, story),
            "interventions": figures.effect_of_interventions(report),
            "passes": figures.passes_per_answer(report, story),
            "retrieval": figures.retrieval(report),
        },
    }


def _asked(report: DemoReport, example: ExampleClip) -> dict[str, str]:
    """Name the clip and write the question of an example, as code of the page asks it."""
    run = Path(report.checkpoint).parent
    clip = Path(example.clip)
    shown = run / clip.relative_to(run.resolve()) if clip.is_relative_to(run.resolve()) else clip
    return {"clip": str(shown), "text": format_question(example.question, example.options)}


def _films(example: ExampleClip, frames_per_step: int) -> dict[str, object]:
    """Turn the two films of an example into addresses that hold them, with stills for those who print the page."""
    return {
        "clip": video_data_uri(example.clip),
        "clip_stills": _stills(example.clip, frames_per_step),
        "thought": video_data_uri(example.thought),
        "thought_stills": _stills(example.thought, frames_per_step),
    }


def _stills(path: Path, frames_per_step: int) -> list[str]:
    frames = read_video(path).frames[frames_per_step - 1 :: frames_per_step]
    return [frame_data_uri(np.ascontiguousarray(frame)) for frame in frames]


def _pictures(step: ImaginedStep) -> tuple[ImaginedStep, str, list[tuple[Neighbour, str]]]:
    """Pair a step and its neighbours with addresses that hold their frames."""
    neighbours = [(neighbour, frame_data_uri(neighbour.frame)) for neighbour in step.neighbours]
    return step, frame_data_uri(step.true_frame), neighbours
