"""Measured results on a model card, each with the command that printed it and the scorer that read the answers."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storm_hf.errors import PublicationError
from storm_hf.hub.leak_checks import last_name


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """The accuracy on one benchmark.

    Args:
        benchmark (`str`):
            Its name, such as `videomme`.
        accuracy (`float`):
            Share of correct answers, in [0, 1].
        scorer (`str`):
            Parser of the answers.
        command (`str`):
            Command that reproduces the number.
        dataset (`str`, *optional*):
            The data set on the Hub that the questions come from.
        num_questions (`int`, *optional*):
            The denominator.
        standard_error (`float`, *optional*):
            Of the accuracy.
    """

    benchmark: str
    accuracy: float
    scorer: str
    command: str
    dataset: str | None = None
    num_questions: int | None = None
    standard_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class InterventionResult:
    """Accuracy with replaced latents.

    Args:
        what (`str`):
            Latents that were fed.
        accuracy (`float`):
            Share of correct answers, in [0, 1].
        low (`float`, *optional*):
            Lower end of its 95 % interval.
        high (`float`, *optional*):
            Upper end.
        follows_donor (`float`, *optional*):
            For latents of another clip: share of answers that became that clip's.
    """

    what: str
    accuracy: float
    low: float | None = None
    high: float | None = None
    follows_donor: float | None = None


@dataclass(frozen=True, kw_only=True)
class CausalUse:
    """Evidence that the answers come from the latents, or do not.

    Args:
        headline (`str`):
            The verdict in a few words.
        sentence (`str`):
            Reason for the verdict.
        rows (`tuple[InterventionResult, ...]`):
            The token replacement test; first with the model's own latents.
        command (`str`, *optional*):
            Command that reproduces the table.
        dataset (`str`, *optional*):
            Data set of the questions.
        num_questions (`int`, *optional*):
            Number of questions.
        chance (`float`, *optional*):
            Accuracy of guessing.
    """

    headline: str
    sentence: str
    rows: tuple[InterventionResult, ...]
    command: str | None = None
    dataset: str | None = None
    num_questions: int | None = None
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class VariantCost:
    """Cost of an answer.

    Args:
        way (`str`):
            Way of answering, such as `direct`.
        forward_passes (`float`, *optional*):
            Mean number of calls of the language model.
        seconds (`float`, *optional*):
            Median wall time.
        accuracy (`float`, *optional*):
            Share of correct answers on the same questions, in [0, 1].
    """

    way: str
    forward_passes: float | None = None
    seconds: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Cost of an answer, beside other ways of answering.

    Args:
        costs (`tuple[VariantCost, ...]`):
            One for each way.
        command (`str`):
            Command that reproduces the table.
        machine (`str`, *optional*):
            Machine of the measurement.
    """

    costs: tuple[VariantCost, ...]
    command: str
    machine: str | None = None


def causal_use(diagnosis: Mapping[str, Any]) -> CausalUse:
    """Read the token replacement test out of a diagnosis.

    Args:
        diagnosis (`Mapping[str, Any]`):
            The contents of a `diagnosis.json`, as `storm diagnose` writes it. Of folders of this machine, names are left.
    """
    verdict = diagnosis["verdict"]
    return CausalUse(
        headline=verdict["headline"],
        sentence=verdict["sentence"],
        rows=tuple(_replaced(effect) for effect in diagnosis["effects"].values()),
        command=_without_folders(diagnosis["command"]) or None,
        dataset=last_name(diagnosis["dataset"]),
        num_questions=diagnosis["num_questions"],
        chance=diagnosis["chance"],
    )


def _replaced(effect: Mapping[str, Any]) -> InterventionResult:
    accuracy, follows = effect["accuracy"], effect.get("follows_donor")
    return InterventionResult(
        what=effect["label"],
        accuracy=accuracy["mean"],
        low=accuracy["low"],
        high=accuracy["high"],
        follows_donor=None if follows is None else follows["mean"],
    )


def benchmark_results(report: Mapping[str, Any], variant: str = "storm") -> tuple[BenchmarkResult, ...]:
    """Read the accuracies of one way of answering out of a report of the public benchmarks.

    Args:
        report (`Mapping[str, Any]`):
            The contents of the `report.json` of `storm evaluate`.
        variant (`str`, *optional*, defaults to `"storm"`):
            The way of answering.

    Raises:
        PublicationError: If the report does not say which command made it, or has no number of this variant.
    """
    command = _command(report)
    results = tuple(
        BenchmarkResult(
            benchmark=result["part"],
            accuracy=result["score"]["accuracy"],
            scorer=result["scorer"] + (f", judged by {result['judge']}" if result["judge"] else ""),
            command=command,
            num_questions=result["score"]["num_counted"],
            standard_error=result["score"]["standard_error"],
        )
        for result in report["results"]
        if result["arm"] == variant and result["group"] is None and result["score"]["accuracy"] is not None
    )
    if not results:
        variants = sorted({result["arm"] for result in report["results"]})
        raise PublicationError(
            f"Expected a number of the variant {variant} in the report but it has {', '.join(variants) or 'no variant'}. "
            f"Measure it with `storm evaluate --variant {variant}`."
        )
    return results


def latency(report: Mapping[str, Any]) -> Latency | None:
    """Read what an answer costs in each variant out of a report of the public benchmarks: on the first that has it of more than one.

    Args:
        report (`Mapping[str, Any]`):
            The contents of the `report.json` of `storm evaluate`.

    Returns:
        [`Latency`], or `None` if no two variants were measured on the same questions.

    Raises:
        PublicationError: If the report does not say which command made it.
    """
    parts: dict[str, list[VariantCost]] = {}
    for cost in report["costs"]:
        if cost["seconds"] is not None or cost["forward_passes"] is not None:
            way = VariantCost(way=cost["arm"], forward_passes=cost["forward_passes"], seconds=cost["seconds"])
            parts.setdefault(cost["part"], []).append(way)
    costs = next((ways for ways in parts.values() if len(ways) > 1), None)
    return None if costs is None else Latency(costs=tuple(costs), command=_command(report))


def _command(measured: Mapping[str, Any]) -> str:
    """Command that made a report, with absolute paths replaced by their last folder."""
    command = measured.get("command")
    if not command:
        raise PublicationError(
            "Expected a report that says which command made it but this one does not. Give the same `storm evaluate` again: "
            "it keeps the answers, and writes the report anew."
        )
    return _without_folders(command)


def _without_folders(command: str) -> str:
    """A command with the names alone of folders of this machine, also where one stands behind an option and `=`."""
    words = (word.rpartition("=") if word.startswith("--") else ("", "", word) for word in shlex.split(command))
    return shlex.join(option + equals + last_name(value) for option, equals, value in words)
