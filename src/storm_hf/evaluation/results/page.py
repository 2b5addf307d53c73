"""A report as JSON for programs and as one HTML page for people."""

import json
from dataclasses import asdict
from pathlib import Path

from storm_hf.evaluation.results.report import Report
from storm_hf.evaluation.results.wording import (
    COST_COLUMNS,
    SCORE_COLUMNS,
    cost_texts,
    judge_sentence,
    model_sentence,
    score_texts,
    signed_points,
)
from storm_hf.reporting import render_page, write_atomically


def write_report(folder: Path, report: Report) -> None:
    """Write `report.json` and `report.html` into a folder.

    Args:
        folder (`Path`):
            Output folder.
        report ([`Report`]):
            Results to show.
    """
    write_atomically(folder / "report.json", json.dumps(asdict(report), indent=1) + "\n")
    write_atomically(
        folder / "report.html", render_page("storm_hf.evaluation.results", "results.html.j2", **_values(report))
    )


def _values(report: Report) -> dict[str, object]:
    """Functions that the template calls by name."""
    whole = [result for result in report.results if result.group is None]
    parts = list(dict.fromkeys(result.part for result in whole))
    return {
        "parts": parts,
        "arms": list(dict.fromkeys(result.arm for result in whole)),
        "whole": [(result, score_texts(result.score)) for result in whole],
        "detail": [(result, score_texts(result.score)) for result in report.results if result.group is not None],
        "differences": [
            (row, [signed_points(value) for value in (row.interval.mean, row.interval.low, row.interval.high)])
            for row in report.differences
        ],
        "costs": [(cost, cost_texts(cost)) for cost in report.costs if any(text != "-" for text in cost_texts(cost))],
        "judge_sentence": judge_sentence(report),
        "model_sentence": model_sentence(report),
        "command": report.command,
        "score_columns": list(SCORE_COLUMNS),
        "cost_columns": list(COST_COLUMNS),
    }
