"""The charts of the demo's page, each made from the numbers of a report."""

from storm_hf.demo.record import FOLLOWS_DONOR, ArmResult, DemoReport
from storm_hf.demo.story import DemoStory
from storm_hf.evaluation.bootstrap import wilson_interval
from storm_hf.interventions.kind import InterventionKind
from storm_hf.reporting import Bar, Line, Mark, bar_chart, line_chart
from storm_hf.reporting.page import count, duration, percent
from storm_hf.reporting.plots import Tone


ARM_LABELS = {
    "direct": "Direct answer",
    "pause": "Pause tokens",
    "chain_of_thought": "Chain of thought, in sentences",
    "terse_chain": "Terse chain, one word a step",
    "align": "STORM after Stage I",
    "storm": "STORM",
}
_LINE_LABELS = ARM_LABELS | {"direct": "Direct", "chain_of_thought": "Text chain", "terse_chain": "Terse chain"}


def all_arms(report: DemoReport, story: DemoStory) -> dict[str, ArmResult]:
    """Collect every arm, STORM last."""
    arms = {**report.arms, **story.extra_arms}
    known = [name for name in ARM_LABELS if name in arms]
    others = [name for name in arms if name not in ARM_LABELS]
    return {name: arms[name] for name in [*others, *known]}


def arm_label(name: str) -> str:
    """Name an arm as readers know it."""
    return ARM_LABELS.get(name, name.replace("_", " ").capitalize())


def accuracy_by_depth(report: DemoReport, story: DemoStory) -> str:
    """Draw the headline: accuracy over the number of updates that an answer needs."""
    depths = sorted(report.by_depth, key=int)
    own = {arm: [(int(depth), report.by_depth[depth][arm]) for depth in depths] for arm in ("direct", "storm")}
    extra = {
        arm: [(int(depth), by_depth[depth]) for depth in sorted(by_depth, key=int)]
        for arm, by_depth in story.extra_by_depth.items()
    }
    lines = [Line(_LINE_LABELS.get(arm, arm_label(arm)), points, "quiet") for arm, points in extra.items()]
    lines += [Line("Direct", own["direct"], "neutral"), Line("STORM", own["storm"], "accent")]
    return line_chart(
        lines,
        title=f"Accuracy by number of {story.depth_unit}",
        x_label=f"number of {story.depth_unit}",
        y_label="questions answered right",
        mark=_chance(report),
    )


def accuracy_of_arms(report: DemoReport, story: DemoStory) -> str:
    """Draw the accuracy of each arm with its 95 % interval."""
    bars = [
        _accuracy_bar(arm_label(name), result.accuracy, report.num_test, is_ours=name == "storm")
        for name, result in all_arms(report, story).items()
    ]
    return bar_chart(bars, title=f"Accuracy on {story.deep_clips}", mark=_chance(report))


def effect_of_interventions(report: DemoReport) -> str:
    """Draw what becomes of the answers when the latents are replaced."""
    shares = dict(report.interventions)
    follows = shares.pop(FOLLOWS_DONOR)
    bars = [
        _accuracy_bar(InterventionKind(kind).label, share, report.num_test, is_ours=kind == InterventionKind.own)
        for kind, share in shares.items()
    ]
    bars.append(_accuracy_bar("Follows another clip's latents", follows, report.num_test, is_ours=True))
    title = "Accuracy with replaced latents"
    return bar_chart(bars, title=title, mark=_chance(report))


def passes_per_answer(report: DemoReport, story: DemoStory) -> str:
    """Draw the forward passes until the first answer token."""
    arms = {name: result for name, result in all_arms(report, story).items() if name != "align"}
    bars = [
        Bar(
            label=arm_label(name),
            value=result.forward_passes,
            text=f"{count(result.forward_passes)} · {duration(result.seconds_per_answer)}",
            tone="accent" if name == "storm" else "neutral",
        )
        for name, result in arms.items()
    ]
    longest = max(bar.value for bar in bars)
    return bar_chart(bars, title="Forward passes per answer", maximum=longest)


def retrieval(report: DemoReport) -> str:
    """Draw how often the nearest frame of the gallery shows the true state, beside chance."""
    found = report.retrieval
    mark = Mark(found.chance, f"chance {percent(found.chance)}")
    bar = Bar("Nearest frame is correct", found.top1_state, percent(found.top1_state), "accent")
    return bar_chart([bar], title="Retrieval of the state", mark=mark)


def _accuracy_bar(label: str, accuracy: float, num_test: int, *, is_ours: bool) -> Bar:
    tone: Tone = "accent" if is_ours else "neutral"
    return Bar(label, accuracy, percent(accuracy), tone, wilson_interval(accuracy, num_test))


def _chance(report: DemoReport) -> Mark:
    return Mark(report.chance, f"chance {percent(report.chance)}")
