"""Report of a diagnosis: `diagnosis.json`, and `diagnosis.html`, a page that explains it."""

import os
from collections.abc import Sequence
from pathlib import Path

from storm_hf.diagnostics.intervention_effects import Effect
from storm_hf.diagnostics.record import Diagnosis
from storm_hf.diagnostics.verdict import FEWEST_CLIPS, SOME, USED, with_interval
from storm_hf.evaluation.bootstrap import Interval
from storm_hf.reporting import Bar, Line, Mark, bar_chart, line_chart, render_page, write_atomically
from storm_hf.reporting.page import percent


_JSON_FILE, _PAGE_FILE = "diagnosis.json", "diagnosis.html"


def write_diagnosis(folder: str | os.PathLike[str], diagnosis: Diagnosis, pictures: object = None) -> Path:
    """Write the record and the page, each complete or not at all.

    Args:
        folder (`str` or `os.PathLike`):
            Output folder of both files.
        diagnosis ([`Diagnosis`]):
            Results to show.
        pictures (`markupsafe.Markup`, *optional*):
            Rendered latents, as from [`~storm_hf.diagnostics.latent_decoder.renderer.LatentRenderer`].

    Returns:
        `Path`: The page. It needs no other file and no network.

    Raises:
        DependencyError: If jinja2 is not installed.
    """
    page = render_page(
        "storm_hf.diagnostics",
        "diagnosis.html.j2",
        diagnosis=diagnosis,
        verdict=diagnosis.verdict,
        thresholds={"used": USED, "some": SOME, "fewest_clips": FEWEST_CLIPS},
        with_interval=with_interval,
        pictures=pictures,
        charts={
            "accuracy": _accuracy_of_replacements(diagnosis),
            "donors": _following_donors(diagnosis),
            "steps": _curves_over_steps(diagnosis),
            "content": _content_by_step(diagnosis),
            "attention": _attention_by_layer(diagnosis),
        },
    )
    write_atomically(Path(folder) / _JSON_FILE, diagnosis.to_json())
    return write_atomically(Path(folder) / _PAGE_FILE, page)


def _accuracy_of_replacements(diagnosis: Diagnosis) -> str:
    """Draw the accuracy under each intervention."""
    bars = [
        _share_bar(effect.label, effect.accuracy, is_ours=name == "own") for name, effect in diagnosis.effects.items()
    ]
    mark = None if diagnosis.chance is None else Mark(diagnosis.chance, f"chance {percent(diagnosis.chance)}")
    return bar_chart(bars, title="Accuracy with replaced latents", mark=mark)


def _following_donors(diagnosis: Diagnosis) -> str | None:
    """Draw how often the answer becomes that of the clip whose latents were put in; None without donors."""
    follows = {effect.label: effect.follows_donor for effect in diagnosis.effects.values()}
    bars = [_share_bar(label, share, is_ours=True) for label, share in follows.items() if share is not None]
    if not bars:
        return None
    return bar_chart(bars, title="Answers that become the donor's")


def _curves_over_steps(diagnosis: Diagnosis) -> str | None:
    """Draw what replacing single steps does to the answer."""
    curves = [
        Line("From here on", _points(diagnosis.from_step), "neutral"),
        Line("This step alone", _points(diagnosis.only_step), "accent"),
    ]
    if diagnosis.counterfactuals:
        edits = [(float(edit.step), edit.follows.mean) for edit in diagnosis.counterfactuals]
        curves.insert(0, Line("Simulator", edits, "quiet"))
    lines = [line for line in curves if line.points]
    if not lines:
        return None
    return line_chart(
        lines,
        title="Answers that follow, by replaced step",
        x_label="latent step",
        y_label="answers that follow",
    )


def _content_by_step(diagnosis: Diagnosis) -> str | None:
    """Draw what can be found in the latents of each step; None where nothing is known of the truth."""
    lines = []
    if diagnosis.retrieval:
        own = [(step + 1.0, found.own) for step, found in enumerate(diagnosis.retrieval)]
        lines.append(Line("Own thought", own, "quiet"))
        states = [
            (step + 1.0, found.state) for step, found in enumerate(diagnosis.retrieval) if found.state is not None
        ]
        lines += [Line("State, nearest", states, "neutral")] if states else []
    if diagnosis.probes:
        lines.append(
            Line("State, probe", [(step + 1.0, p.accuracy.mean) for step, p in enumerate(diagnosis.probes)], "accent")
        )
    if not lines:
        return None
    return line_chart(
        lines,
        title="What the latents hold, by step",
        x_label="latent step",
        y_label="latents that hold it",
    )


def _attention_by_layer(diagnosis: Diagnosis) -> str | None:
    """Draw each layer's attention on the latents; None if it was not measured."""
    if not diagnosis.attention:
        return None
    bars = [
        Bar(f"Layer {number}", layer.on_latents, percent(layer.on_latents), "accent")
        for number, layer in enumerate(diagnosis.attention, start=1)
    ]
    uniform = diagnosis.attention[0].uniform
    mark = Mark(uniform, f"equal attention {percent(uniform)}")
    return bar_chart(bars, title="Attention on the latents", mark=mark)


def _points(effects: Sequence[Effect]) -> list[tuple[float, float]]:
    shares = [(step + 1.0, effect.follows_donor) for step, effect in enumerate(effects)]
    return [(step, share.mean) for step, share in shares if share is not None]


def _share_bar(label: str, share: Interval, *, is_ours: bool) -> Bar:
    ends = (max(share.low, 0.0), min(share.high, 1.0))
    return Bar(label, share.mean, percent(share.mean), "accent" if is_ours else "neutral", ends)
