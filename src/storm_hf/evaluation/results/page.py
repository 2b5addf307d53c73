"""A report as JSON, as an HTML page and as a table on a terminal."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from storm_hf.evaluation.results.report import Cost, Report, Score
from storm_hf.reporting import render_page, write_atomically
from storm_hf.reporting.page import count, duration, percent


def write_report(folder: Path, report: Report) -> None:
    """Write `report.json` and `report.html` into a folder.

    Args:
        folder (`Path`):
            Output folder.
        report ([`Report`]):
            Results to show.
    """
    write_atomically(folder / "report.json", json.dumps(asdict(report, dict_factory=_on_disk), indent=1) + "\n")
    write_atomically(
        folder / "report.html", render_page("storm_hf.evaluation.results", "results.html.j2", **_values(report))
    )


def _on_disk(fields: list[tuple[str, object]]) -> dict[str, object]:
    """Name the variant `arm`, as in the files of earlier versions."""
    return {"arm" if name == "variant" else name: value for name, value in fields}


def _values(report: Report) -> dict[str, object]:
    """Functions that the template calls by name."""
    whole = [result for result in report.results if result.group is None]
    parts = list(dict.fromkeys(result.part for result in whole))
    return {
        "parts": parts,
        "variants": list(dict.fromkeys(result.variant for result in whole)),
        "whole": [(result, _score_texts(result.score)) for result in whole],
        "detail": [(result, _score_texts(result.score)) for result in report.results if result.group is not None],
        "differences": [
            (row, [_signed_points(value) for value in (row.interval.mean, row.interval.low, row.interval.high)])
            for row in report.differences
        ],
        "costs": [
            (cost, _cost_texts(cost)) for cost in report.costs if any(text != "-" for text in _cost_texts(cost))
        ],
        "judge_sentence": judge_sentence(report),
        "model_sentence": model_sentence(report),
        "command": report.command,
        "score_columns": list(_SCORE_COLUMNS),
        "cost_columns": list(_COST_COLUMNS),
    }


def report_table(report: Report) -> Table:
    """Lay out the numbers of whole benchmarks and tasks; sub-scores are on the page.

    Args:
        report ([`Report`]):
            Results to show.

    Returns:
        `rich.table.Table`: For `rich.print`.
    """
    table = Table(
        title="Accuracy by scorer",
        caption=f"{model_sentence(report)} {judge_sentence(report)}".strip(),
        caption_justify="left",
    )
    for column in ("Benchmark", "Variant", "Scorer, judge"):
        table.add_column(column, overflow="fold")
    for column in ("Accuracy", "Counted", "Asked", "Unread", "Unjudged"):
        table.add_column(column, justify="right", no_wrap=True)
    whole = sorted((row for row in report.results if row.group is None), key=lambda row: (row.part, row.variant))
    for row in whole:
        accuracy, error, *counts, _ = _score_texts(row.score)
        marked = accuracy if error == "-" else f"{accuracy} {error}"
        table.add_row(row.part, row.variant, f"{row.scorer}, {row.judge or 'none'}", marked, *counts)
    return table


_SCORE_COLUMNS = ("Accuracy", "Standard error", "Counted", "Asked", "Unreadable", "Unjudged", "Videos")
_COST_COLUMNS = ("Time per answer", "Forward passes", "Tokens")


def _percent_or_dash(share: float | None) -> str:
    """A share as a percentage, a dash where there is none."""
    return "-" if share is None else percent(share)


def _score_texts(score: Score) -> tuple[str, ...]:
    """A score in the order of `_SCORE_COLUMNS`."""
    error = "-" if score.standard_error is None else f"± {100 * score.standard_error:.1f}"
    numbers = (score.num_counted, score.num_asked, score.num_unreadable, score.num_unjudged, score.num_videos)
    return _percent_or_dash(score.accuracy), error, *(f"{number:,}" for number in numbers)


def _cost_texts(cost: Cost) -> tuple[str, ...]:
    """A cost in the order of `_COST_COLUMNS`."""
    seconds = "-" if cost.seconds is None else duration(cost.seconds)
    return seconds, *("-" if mean is None else count(mean) for mean in (cost.forward_passes, cost.output_tokens))


def _signed_points(difference: float) -> str:
    """A difference of two accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def model_sentence(report: Report) -> str:
    """The checkpoint of each variant; empty if no run recorded it."""
    variants: dict[str, list[str]] = {}
    for variant, model in report.models.items():
        variants.setdefault(model, []).append(variant)
    return " ".join(f"{model} answered as {', '.join(named)}." for model, named in variants.items())


def judge_sentence(report: Report) -> str:
    """Name the judge, and the answers that it left open."""
    num_open = max((result.score.num_unjudged for result in report.results), default=0)
    if report.judge is not None:
        rest = f" Its verdict on up to {num_open:,} answers of a row says neither right nor wrong." if num_open else ""
        return f"Judge of what the rules leave open: {report.judge}.{rest}"
    if not num_open:
        return "No judge was asked, and none was needed."
    return (
        "No judge was asked. Answers that wait for one stand under “Unjudged”: where a rule came first they count as wrong, where "
        "a judge reads everything (captions, and MMVU by its official scorer) they are left out. Neither number compares with "
        "published ones that had a judge."
    )
