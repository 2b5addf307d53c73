"""What a run shows: every arm, task, sub-score and scorer, and the differences between arms, each number beside how it was made."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from storm_hf.errors import ReportError
from storm_hf.evaluation.bootstrap import Interval
from storm_hf.evaluation.results.score import Score


@dataclass(frozen=True)
class Result:
    """One number of a report.

    Args:
        arm (`str`):
            Way of answering.
        part (`str`):
            Benchmark, or task of one.
        group (`str` or `None`):
            What a sub-score is over, such as `duration: short`; `None` for the whole part.
        scorer (`str`):
            Who read the answers.
        judge (`str` or `None`):
            Who marked what the scorer left open.
        score ([`Score`]):
            The number, its denominator and its error.
    """

    arm: str
    part: str
    group: str | None
    scorer: str
    judge: str | None
    score: Score


@dataclass(frozen=True)
class Difference:
    """How much better one arm is than another, on the questions that both count.

    Args:
        first (`str`):
            An arm.
        second (`str`):
            The arm that is subtracted.
        part (`str`):
            Benchmark.
        scorer (`str`):
            Who read the answers.
        interval ([`~storm_hf.evaluation.bootstrap.Interval`]):
            Mean difference of accuracies with its 95 % paired bootstrap interval, videos drawn whole.
        num_questions (`int`):
            Over how many.
        num_videos (`int`):
            About how many videos.
    """

    first: str
    second: str
    part: str
    scorer: str
    interval: Interval
    num_questions: int
    num_videos: int


@dataclass(frozen=True)
class Cost:
    """What an answer costs, as the harness logged it; `None` for what it did not log.

    Args:
        arm (`str`):
            Way of answering.
        part (`str`):
            Benchmark.
        seconds (`float` or `None`):
            Median wall time; in a batch, its share of it.
        forward_passes (`float` or `None`):
            Mean number of calls of the language model.
        output_tokens (`float` or `None`):
            Mean number of generated tokens.
    """

    arm: str
    part: str
    seconds: float | None
    forward_passes: float | None
    output_tokens: float | None


@dataclass(frozen=True)
class Report:
    """What a run shows.

    Args:
        judge (`str` or `None`):
            Who marked what scorers leave open; `None` if nobody did.
        results (`tuple[Result, ...]`):
            All numbers.
        differences (`tuple[Difference, ...]`):
            Between each two arms.
        costs (`tuple[Cost, ...]`):
            Of each arm on each benchmark.
        command (`str` or `None`):
            What makes it again.
        models (`Mapping[str, str]`, *optional*):
            From each arm to its checkpoint, of a name on the Hub with its commit.
    """

    judge: str | None
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    costs: tuple[Cost, ...]
    command: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)

    def score(self, arm: str, part: str, scorer: str, group: str | None = None) -> Score:
        """Find a number.

        Raises:
            ReportError: If there is none of this name.
        """
        wanted = (arm, part, scorer, group)
        for result in self.results:
            if (result.arm, result.part, result.scorer, result.group) == wanted:
                return result.score
        raise ReportError(f"Expected an arm, part, scorer and group of the report but got {wanted}.")
