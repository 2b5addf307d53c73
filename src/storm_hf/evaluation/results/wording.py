"""Format of the numbers of a report, the same on a terminal and on a page."""

from storm_hf.evaluation.results.report import Cost, Report
from storm_hf.evaluation.results.score import Score
from storm_hf.reporting.page import count, duration, percent


SCORE_COLUMNS = ("Accuracy", "Standard error", "Counted", "Asked", "Unreadable", "Unjudged", "Videos")
COST_COLUMNS = ("Time per answer", "Forward passes", "Tokens")


def percent_or_dash(share: float | None) -> str:
    """A share as a percentage, a dash where there is none."""
    return "-" if share is None else percent(share)


def score_texts(score: Score) -> tuple[str, ...]:
    """A score in the order of `SCORE_COLUMNS`."""
    error = "-" if score.standard_error is None else f"± {100 * score.standard_error:.1f}"
    numbers = (score.num_counted, score.num_asked, score.num_unreadable, score.num_unjudged, score.num_videos)
    return percent_or_dash(score.accuracy), error, *(f"{number:,}" for number in numbers)


def cost_texts(cost: Cost) -> tuple[str, ...]:
    """A cost in the order of `COST_COLUMNS`."""
    seconds = "-" if cost.seconds is None else duration(cost.seconds)
    return seconds, *("-" if mean is None else count(mean) for mean in (cost.forward_passes, cost.output_tokens))


def signed_points(difference: float) -> str:
    """A difference of two accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def model_sentence(report: Report) -> str:
    """The checkpoint of each arm; empty if no run recorded it."""
    arms: dict[str, list[str]] = {}
    for arm, model in report.models.items():
        arms.setdefault(model, []).append(arm)
    return " ".join(f"{model} answered as {', '.join(named)}." for model, named in arms.items())


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
