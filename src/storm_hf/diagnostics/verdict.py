"""Verdict on the use of the latents: one sentence that stands on the ends of intervals, never on a point value.

used      both hold at the unfavourable end of their 95 % intervals: another clip's latents steer at least half of the answers
          to that clip's, and without content in them at least half of the accuracy above guessing is lost
partly    one of the two reaches at least a tenth
not used  neither does
unclear   too few clips, or intervals so wide that a tenth can be neither shown nor ruled out
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from storm_hf.diagnostics.intervention_effects import Effect
from storm_hf.evaluation.bootstrap import Interval
from storm_hf.interventions.kind import CONTENT_FREE, InterventionKind
from storm_hf.reporting.page import percent


Outcome = Literal["used", "partly", "not_used", "unclear"]

USED = 0.5  # share of donors that steer, and share of the accuracy above guessing that is lost
SOME = 0.1
FEWEST_CLIPS = 30

HEADLINES: dict[Outcome, str] = {
    "used": "The answers come from the latents.",
    "partly": "The latents are used in part.",
    "not_used": "These latents are not used.",
    "unclear": "This test cannot tell.",
}
THRESHOLDS = {"used": USED, "partly": SOME, "fewest_clips": FEWEST_CLIPS}


@dataclass(frozen=True)
class Verdict:
    """Verdict of the interventions.

    Args:
        outcome (`str`):
            `used`, `partly`, `not_used` or `unclear`.
        sentence (`str`):
            Reason, with the numbers and their intervals.
        steered ([`~storm_hf.evaluation.bootstrap.Interval`], *optional*):
            Answers that another clip's latents turn into that clip's, beyond those that were so already.
        lost_share ([`~storm_hf.evaluation.bootstrap.Interval`], *optional*):
            Share of the accuracy above guessing that goes when the content of the latents goes; None for a model that does
            not answer better than guessing.
    """

    outcome: Outcome
    sentence: str
    steered: Interval | None
    lost_share: Interval | None

    @property
    def headline(self) -> str:
        """The outcome in a few words."""
        return HEADLINES[self.outcome]


def judge(effects: Mapping[str, Effect], chance: float | None, num_clips: int) -> Verdict:
    """Say whether the latents are used.

    Args:
        effects (`Mapping[str, Effect]`):
            Of the token replacement test, by name.
        chance (`float`, *optional*):
            Accuracy of guessing; None counts as 0.
        num_clips (`int`):
            Different clips that were asked about.
    """
    donor = effects[InterventionKind.donor]
    best = max((effects[name] for name in CONTENT_FREE if name in effects), key=lambda effect: effect.accuracy.mean)
    share = _lost_share(effects[InterventionKind.own], best, chance or 0.0)
    outcome = _outcome(donor.steered, share, num_clips)
    sentence = f"{_donor_words(donor)} {_content_words(effects['own'], best, chance)}"
    if num_clips < FEWEST_CLIPS:
        sentence = f"{num_clips} clips are too few, at least {FEWEST_CLIPS} are needed. {sentence}"
    return Verdict(outcome, sentence, donor.steered, share)


def _outcome(steered: Interval | None, lost: Interval | None, num_clips: int) -> Outcome:
    measured = [interval for interval in (steered, lost) if interval is not None]
    if num_clips < FEWEST_CLIPS or not measured:
        return "unclear"
    if len(measured) == 2 and all(interval.low >= USED for interval in measured):
        return "used"
    if any(interval.low >= SOME for interval in measured):
        return "partly"
    return "not_used" if all(interval.high < SOME for interval in measured) else "unclear"


def _lost_share(own: Effect, best: Effect, chance: float) -> Interval | None:
    """Divide what is lost by what there was to lose, each end by the end that makes it worse."""
    if own.accuracy.low <= chance:
        return None
    stakes = Interval(*(end - chance for end in (own.accuracy.mean, own.accuracy.high, own.accuracy.low)))
    return Interval(best.lost.mean / stakes.mean, best.lost.low / stakes.low, best.lost.high / stakes.high)


def _donor_words(donor: Effect) -> str:
    if donor.follows_donor is None:
        return (
            f"Another clip's latents change {with_interval(donor.changed)} of the answers; no two questions of the same wording "
            "have different answers, so whether they steer cannot be seen."
        )
    return (
        f"With another clip's latents the answer becomes that clip's in {with_interval(donor.follows_donor)} of the cases, and "
        f"changes in {with_interval(donor.changed)}."
    )


def _content_words(own: Effect, best: Effect, chance: float | None) -> str:
    guessing = "" if chance is None else f", where guessing gets {percent(chance)}"
    label = best.label[0].lower() + best.label[1:]
    return (
        f"With its own latents {with_interval(own.accuracy)} are correct; with {label}, the best of all replacements without "
        f"content, {with_interval(best.accuracy)}{guessing}."
    )


def with_interval(interval: Interval) -> str:
    """Write a share with its 95 % interval: `97% (95% interval 95% to 98.2%)`."""
    low, high = max(interval.low, 0.0), min(interval.high, 1.0)
    return f"{percent(interval.mean)} (95% interval {percent(low)} to {percent(high)})"
