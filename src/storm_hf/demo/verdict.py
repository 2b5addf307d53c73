"""Verdict of the demo: one sentence, computed from the numbers, that names what falls short."""

from dataclasses import dataclass
from typing import Literal

from storm_hf.demo.report_data import FOLLOWS_DONOR, DemoReport, DemoStory
from storm_hf.evaluation.bootstrap import wilson_interval
from storm_hf.interventions.kind import CONTENT_FREE, InterventionKind
from storm_hf.reporting.page import percent


Outcome = Literal["works", "partly", "unused", "fails"]

HEADLINES: dict[Outcome, str] = {
    "works": "It works.",
    "partly": "It works in part.",
    "unused": "The answers do not come from the latents.",
    "fails": "It does not work.",
}

_GOOD_ACCURACY = 0.95
_GOOD_RETRIEVAL = 0.95
_GOOD_STEERING = 0.90
_ABOVE_CHANCE = 0.10  # how far above chance an answer without latents may stay
_NEARLY_IDENTICAL = 0.90  # cosine between the targets of two random clips


@dataclass(frozen=True)
class Verdict:
    """Verdict on a run.

    Args:
        outcome (`str`):
            `works`, `partly`, `unused` (correct answers that do not depend on the latents) or `fails`.
        sentence (`str`):
            Reason, with the numbers.
    """

    outcome: Outcome
    sentence: str

    @property
    def headline(self) -> str:
        """The outcome in a few words."""
        return HEADLINES[self.outcome]


def judge(report: DemoReport, story: DemoStory) -> Verdict:
    """Say whether the run worked.

    It worked if STORM is correct on deep clips and at every depth, better than direct answering, through its latents:
    without them it guesses, and with another clip's it gives that clip's answer. Differences count only outside of
    their 95 % intervals.
    """
    low, _ = wilson_interval(report.arms["storm"].accuracy, report.num_test)
    if low <= report.chance:
        return Verdict("fails", f"{_score(report, story)} {_why_it_fails(report, story)}")
    if not _uses_latents(report):
        return Verdict("unused", f"{_score(report, story)} {_unused(report)}{_why_unused(report, story)}")
    shortfalls = _shortfalls(report, story)
    if shortfalls:
        return Verdict("partly", f"{_score(report, story)} What falls short: {'; '.join(shortfalls)}.")
    return Verdict("works", f"{_score(report, story)} {_used(report)}")


def _score(report: DemoReport, story: DemoStory) -> str:
    storm, direct = report.arms["storm"].accuracy, report.arms["direct"].accuracy
    return (
        f"On {report.num_test} held-out {story.recipe.deep_clips}, STORM answers {percent(storm)} correctly and direct answering "
        f"{percent(direct)}, where guessing gets {percent(report.chance)}."
    )


def _used(report: DemoReport) -> str:
    cut = report.interventions
    return (
        f"And the answer comes from the latents: set to zero, {percent(cut[InterventionKind.zero])} are correct; replaced by those of "
        f"another clip, the answer becomes that clip's in {percent(cut[FOLLOWS_DONOR])} of the cases."
    )


def _unused(report: DemoReport) -> str:
    cut = report.interventions
    return (
        f"The latents are not used: with zeros in their place {percent(cut[InterventionKind.zero])} are still correct, and another clip's "
        f"latents change the answer to that clip's in only {percent(cut[FOLLOWS_DONOR])} of the cases."
    )


def _why_it_fails(report: DemoReport, story: DemoStory) -> str:
    if not _uses_latents(report) and story.recipe.naive_targets:
        cut = report.interventions
        zeroed = f"The latents are not used: with zeros in their place it is {percent(cut[InterventionKind.zero])}."
        return f"{zeroed}{_why_unused(report, story)}"
    oracle = report.interventions[InterventionKind.oracle]
    low, _ = wilson_interval(oracle, report.num_test)
    if low > report.chance:
        return f"Fed the true targets it answers {percent(oracle)} correctly, so it is the imagining that fails."
    return f"Even fed the true targets it answers {percent(oracle)} correctly, so nothing is read from the latents."


def _why_unused(report: DemoReport, story: DemoStory) -> str:
    if not story.recipe.naive_targets:
        return ""
    raw = story.cosines.raw
    if raw < _NEARLY_IDENTICAL:
        return f" This run trained on raw pooled features (random-pair cosine {raw:.2f})."
    low, _ = wilson_interval(report.interventions[InterventionKind.oracle], report.num_test)
    missed = (
        f"miss the little that differs, which the true targets hold: fed those, it answers "
        f"{percent(report.interventions[InterventionKind.oracle])} correctly"
        if low > report.chance
        else "have nothing to carry"
    )
    return (
        f" The reason is the targets: raw pooled features of any two thought videos are nearly identical (random-pair "
        f"cosine {raw:.3f}), so latents can match them almost perfectly and {missed}."
    )


def _uses_latents(report: DemoReport) -> bool:
    """Test that replacing the latents removes at least half of the accuracy above chance, and that swapping them steers."""
    cut = report.interventions
    without = max(cut[kind] for kind in CONTENT_FREE if kind in cut)
    return without - report.chance <= (cut[InterventionKind.own] - report.chance) / 2 and cut[FOLLOWS_DONOR] >= 0.5


def _shortfalls(report: DemoReport, story: DemoStory) -> list[str]:
    cut = report.interventions
    storm, direct = (report.arms[name].accuracy for name in ("storm", "direct"))
    depth, lowest = min(
        ((depth, by_variant["storm"]) for depth, by_variant in report.by_depth.items()), key=lambda at: at[1]
    )
    asked_openly = storm if report.open is None else report.open.arms["storm"]
    kind = max((kind for kind in CONTENT_FREE if kind in cut), key=lambda kind: cut[kind])
    storm_low, direct_high = wilson_interval(storm, report.num_test)[0], wilson_interval(direct, report.num_test)[1]
    checks = [
        (storm < _GOOD_ACCURACY, f"the accuracy stays below {percent(_GOOD_ACCURACY)}"),
        (asked_openly < _GOOD_ACCURACY, f"asked {story.recipe.second_form}, STORM answers {percent(asked_openly)} correctly"),
        (lowest < _GOOD_ACCURACY, f"at {depth} {story.recipe.depth_unit} STORM answers {percent(lowest)} correctly"),
        (storm_low <= direct_high, "direct answering is as good within the error of the test"),
        (cut[kind] > report.chance + _ABOVE_CHANCE, f"fed {kind.phrase}, it still answers {percent(cut[kind])} correctly"),
        (cut[FOLLOWS_DONOR] < _GOOD_STEERING, f"another clip's latents steer {percent(cut[FOLLOWS_DONOR])} of the answers"),
        (report.retrieval.top1_state < _GOOD_RETRIEVAL, f"{percent(report.retrieval.top1_state)} of the latents lie "
         "nearest to a frame of the true state"),
    ]  # fmt: skip
    return [shortfall for is_short, shortfall in checks if is_short]
