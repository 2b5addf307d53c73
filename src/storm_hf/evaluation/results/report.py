"""Report of a run: arms, tasks, sub-scores and scorers, the differences between arms, and how each number was made."""

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
            Group of a sub-score, such as `duration: short`; `None` for the whole part.
        scorer (`str`):
            Parser of the answers.
        judge (`str` or `None`):
            Judge of the answers that the scorer left open.
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
    """Difference in accuracy between two arms, on the questions that both count.

    Args:
        first (`str`):
            An arm.
        second (`str`):
            The arm that is subtracted.
        part (`str`):
            Benchmark.
        scorer (`str`):
            Parser of the answers.
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
    """Cost of an answer, as the harness logged it; `None` for fields that it did not log.

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
    """Results of a run.

    Args:
        judge (`str` or `None`):
            Judge of the answers that scorers leave open; `None` without one.
        results (`tuple[Result, ...]`):
            All numbers.
        differences (`tuple[Difference, ...]`):
            Between each two arms.
        costs (`tuple[Cost, ...]`):
            Of each arm on each benchmark.
        command (`str` or `None`):
            Command that reproduces it.
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
