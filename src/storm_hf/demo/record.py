"""The numbers of a demo: what `report.json` says, field for field."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from storm_hf.errors import ReportError


ARMS = ("direct", "chain_of_thought", "align", "storm")
ARMS_BY_DEPTH = ("direct", "storm")
FOLLOWS_DONOR = "follows_donor"
INTERVENTIONS = ("own", "zero", "noise_per_dataset", "mean_over_questions", FOLLOWS_DONOR, "oracle")
# Names in runs of earlier versions.
_RENAMED = {
    "none": "own",
    "noise": "noise_per_dataset",
    "mean": "mean_over_questions",
    "swap_follows_donor": FOLLOWS_DONOR,
    "without_clip": "latents_only",
}


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """Accuracy and cost of one way of answering.

    Args:
        accuracy (`float`):
            Share of test questions answered right, 0 to 1.
        forward_passes (`float`):
            Mean passes through the model until the first answer token.
        seconds_per_answer (`float`):
            Wall time of one answer.
        train_seconds (`float`):
            Wall time of its training, without what all arms share.
    """

    accuracy: float
    forward_passes: float
    seconds_per_answer: float
    train_seconds: float

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> "ArmResult":
        """Take the part of an arm's `results.json` that the report shows."""
        return cls(**{field.name: results[field.name] for field in fields(cls)})


def read_interventions(measured: Mapping[str, float]) -> dict[str, float]:
    """Read the interventions of an arm's `results.json`, also of one that was written with earlier names.

    Args:
        measured (`Mapping[str, float]`):
            From an intervention to the accuracy, and `follows_donor`, the share of answers that become the correct one of the
            clip whose latents were fed.
    """
    return {_RENAMED.get(name, name): share for name, share in measured.items()}


@dataclass(frozen=True)
class Retrieval:
    """Retrieval accuracy: the share of latents whose nearest target shows the true state.

    Args:
        top1_state (`float`):
            Share of latents for which it does, 0 to 1.
        gallery (`int`):
            Targets of other clips that are searched.
        chance (`float`):
            Retrieval accuracy of a random target of the gallery.
    """

    top1_state: float
    gallery: int
    chance: float


@dataclass(frozen=True)
class OpenQuestions:
    """The deep clips asked about without options.

    Args:
        arms (`Mapping[str, float]`):
            Accuracy of each arm.
        interventions (`Mapping[str, float]`):
            Accuracy of STORM under each intervention, and `follows_donor`; see [`read_interventions`].
    """

    arms: Mapping[str, float]
    interventions: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The numbers of a demo, field for field what `report.json` says.

    Args:
        world (`str`):
            Name of the world.
        seed (`int`):
            Seed of the run.
        chance (`float`):
            Accuracy of guessing.
        num_test (`int`):
            Held-out deep clips that arms and interventions are tested on.
        num_latents (`int`):
            Length K of the rollout.
        arms (`Mapping[str, ArmResult]`):
            `direct`, `chain_of_thought`, `align` and `storm`.
        interventions (`Mapping[str, float]`):
            Accuracy of STORM under each intervention, and `follows_donor`; see [`read_interventions`].
        by_depth (`Mapping[str, Mapping[str, float]]`):
            From a depth to the accuracy of `direct` and `storm`.
        retrieval (`Retrieval`):
            Nearest targets of the latents.
        wall_seconds (`float`):
            Time the run took.
        cpu_seconds (`float`):
            Time its processes computed.
        peak_rss_mib (`float`):
            Most memory it held, in MiB.
        checkpoint (`str`):
            Folder of the trained model.
        open ([`OpenQuestions`], *optional*):
            The same clips asked about without options; all other figures are of questions with options.

    Raises:
        ReportError: If an arm is missing or superfluous, a share does not lie between 0 and 1, or a number is not
            finite.
    """

    world: str
    seed: int
    chance: float
    num_test: int
    num_latents: int
    arms: Mapping[str, ArmResult]
    interventions: Mapping[str, float]
    by_depth: Mapping[str, Mapping[str, float]]
    retrieval: Retrieval
    wall_seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    checkpoint: str
    open: OpenQuestions | None = None

    def __post_init__(self) -> None:
        check_names("arms", self.arms, ARMS)
        check_names("interventions", self.interventions, INTERVENTIONS)
        if self.open is not None:
            check_names("the arms of open", self.open.arms, ARMS)
            check_names("the interventions of open", self.open.interventions, INTERVENTIONS)
        for depth, accuracy_of in self.by_depth.items():
            check_names(f"by_depth at {depth}", accuracy_of, ARMS_BY_DEPTH)
        for name, number in _numbers(asdict(self)):
            _check_number(name, number)

    def to_json(self) -> str:
        """Write the report as JSON, in the order of the fields."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


def check_names(what: str, given: Mapping[str, object], expected: tuple[str, ...]) -> None:
    """Make sure that a mapping names what it should and nothing else.

    Raises:
        ReportError: If it does not.
    """
    if set(given) != set(expected):
        raise ReportError(f"Expected {what} to name {', '.join(expected)} but got {', '.join(given) or 'nothing'}.")


def _numbers(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value


def _check_number(name: str, number: float) -> None:
    group, _, last = name.rpartition(".")
    is_share = last in ("accuracy", "chance", "top1_state") or group.startswith(("interventions", "by_depth", "open"))
    if not math.isfinite(number) or number < 0 or (is_share and number > 1):
        expected = "a share from 0 to 1" if is_share else "a finite number of 0 or more"
        raise ReportError(f"Expected {name} of the report to be {expected} but got {number}.")
