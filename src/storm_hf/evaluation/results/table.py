"""A report on a terminal."""

from rich.table import Table

from storm_hf.evaluation.results.report import Report
from storm_hf.evaluation.results.wording import judge_sentence, model_sentence, score_texts


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
    for column in ("Benchmark", "Arm", "Scorer, judge"):
        table.add_column(column, overflow="fold")
    for column in ("Accuracy", "Counted", "Asked", "Unread", "Unjudged"):
        table.add_column(column, justify="right", no_wrap=True)
    whole = sorted((row for row in report.results if row.group is None), key=lambda row: (row.part, row.arm))
    for row in whole:
        accuracy, error, *counts, _ = score_texts(row.score)
        marked = accuracy if error == "-" else f"{accuracy} {error}"
        table.add_row(row.part, row.arm, f"{row.scorer}, {row.judge or 'none'}", marked, *counts)
    return table
