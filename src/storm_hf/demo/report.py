"""Report of a demo: `report.json`, and `report.html`, a page that explains the results with charts."""

import os
from pathlib import Path

import numpy as np

from storm_hf.demo.report_data import (
    FOLLOWS_DONOR,
    DemoReport,
    DemoStory,
    ExampleClip,
    ImaginedStep,
    Neighbour,
    VariantResult,
    check_names,
)
from storm_hf.demo.variants import TITLES
from storm_hf.demo.verdict import judge
from storm_hf.errors import DatasetError
from storm_hf.evaluation.bootstrap import wilson_interval
from storm_hf.interventions.kind import InterventionKind
from storm_hf.reporting import (
    Bar,
    Line,
    Mark,
    bar_chart,
    frame_data_uri,
    line_chart,
    render_page,
    video_data_uri,
    write_atomically,
)
from storm_hf.reporting.page import count, duration, percent
from storm_hf.reporting.plots import Tone
from storm_hf.video import read_video
from storm_hf.worlds import format_question


_LINE_TITLES = TITLES | {"direct": "Direct", "chain_of_thought": "Text chain", "terse_chain": "Terse chain"}


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
        DatasetError: If the story has no example or says nothing of a variant's training.
        VideoReadError: If a clip of an example cannot be read.
    """
    if not story.examples:
        raise DatasetError("Expected at least one example clip to show but got none.")
    check_names("the story's training", story.training, tuple(_all_variants(report, story)))
    page = render_page("storm_hf.demo", "report.html.j2", **_page_values(report, story))
    write_atomically(Path(folder) / "report.json", report.to_json())
    return write_atomically(Path(folder) / "report.html", page)


def _page_values(report: DemoReport, story: DemoStory) -> dict[str, object]:
    return {
        "report": report,
        "story": story,
        "verdict": judge(report, story),
        "variants": _all_variants(report, story),
        "variant_title": variant_title,
        "depths": sorted(report.by_depth, key=int),
        "films": _films(story.examples[0], story.frames_per_step),
        "asked": _asked(report, story.examples[0]),
        "examples": [(example, [_pictures(step) for step in example.steps]) for example in story.examples],
        "charts": {
            "by_depth": _accuracy_by_depth(report, story),
            "variants": _accuracy_of_variants(report, story),
            "interventions": _effect_of_interventions(report),
            "passes": _passes_per_answer(report, story),
            "retrieval": _retrieval(report),
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


def _all_variants(report: DemoReport, story: DemoStory) -> dict[str, VariantResult]:
    """Collect every variant, STORM last."""
    variants = {**report.arms, **story.extra_variants}
    known = [name for name in TITLES if name in variants]
    others = [name for name in variants if name not in TITLES]
    return {name: variants[name] for name in [*others, *known]}


def variant_title(name: str) -> str:
    """Return the title of a variant."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def _accuracy_by_depth(report: DemoReport, story: DemoStory) -> str:
    """Draw the headline: accuracy over the number of updates that an answer needs."""
    depths = sorted(report.by_depth, key=int)
    own = {name: [(int(depth), report.by_depth[depth][name]) for depth in depths] for name in ("direct", "storm")}
    extra = {
        name: [(int(depth), by_depth[depth]) for depth in sorted(by_depth, key=int)]
        for name, by_depth in story.extra_by_depth.items()
    }
    lines = [Line(_LINE_TITLES.get(name, variant_title(name)), points, "quiet") for name, points in extra.items()]
    lines += [Line("Direct", own["direct"], "neutral"), Line("STORM", own["storm"], "accent")]
    return line_chart(
        lines,
        title=f"Accuracy by number of {story.recipe.depth_unit}",
        x_label=f"number of {story.recipe.depth_unit}",
        y_label="questions answered correctly",
        mark=_chance(report),
    )


def _accuracy_of_variants(report: DemoReport, story: DemoStory) -> str:
    """Draw the accuracy of each variant with its 95 % interval."""
    bars = [
        _accuracy_bar(variant_title(name), result.accuracy, report.num_test, is_ours=name == "storm")
        for name, result in _all_variants(report, story).items()
    ]
    return bar_chart(bars, title=f"Accuracy on {story.recipe.deep_clips}", mark=_chance(report))


def _effect_of_interventions(report: DemoReport) -> str:
    """Draw what becomes of the answers when the latents are replaced."""
    shares = dict(report.interventions)
    follows = shares.pop(FOLLOWS_DONOR)
    bars = [
        _accuracy_bar(InterventionKind(kind).label, share, report.num_test, is_ours=kind == InterventionKind.own)
        for kind, share in shares.items()
    ]
    bars.append(_accuracy_bar("Follows another clip's latents", follows, report.num_test, is_ours=True))
    title = "Accuracy with replaced latents"
    return bar_chart(bars, title=title, mark=_chance(report))


def _passes_per_answer(report: DemoReport, story: DemoStory) -> str:
    """Draw the forward passes until the first answer token."""
    variants = {name: result for name, result in _all_variants(report, story).items() if name != "align"}
    bars = [
        Bar(
            label=variant_title(name),
            value=result.forward_passes,
            text=f"{count(result.forward_passes)} · {duration(result.seconds_per_answer)}",
            tone="accent" if name == "storm" else "neutral",
        )
        for name, result in variants.items()
    ]
    longest = max(bar.value for bar in bars)
    return bar_chart(bars, title="Forward passes per answer", maximum=longest)


def _retrieval(report: DemoReport) -> str:
    """Draw how often the nearest frame of the gallery shows the true state, beside chance."""
    found = report.retrieval
    mark = Mark(found.chance, f"chance {percent(found.chance)}")
    bar = Bar("Nearest frame is correct", found.top1_state, percent(found.top1_state), "accent")
    return bar_chart([bar], title="Retrieval of the state", mark=mark)


def _accuracy_bar(label: str, accuracy: float, num_test: int, *, is_ours: bool) -> Bar:
    tone: Tone = "accent" if is_ours else "neutral"
    return Bar(label, accuracy, percent(accuracy), tone, wilson_interval(accuracy, num_test))


def _chance(report: DemoReport) -> Mark:
    return Mark(report.chance, f"chance {percent(report.chance)}")
