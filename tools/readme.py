"""Figures of the README, written from the records of the benchmarks (`benchmarks/records.json`).

    python tools/readme.py                     # write the figures into README.md
    python tools/readme.py --demo runs/demo    # first take the record of `make demo` from a run
    python tools/readme.py --pretrained runs/smollm2    # the same of `make demo-pretrained`
    python tools/readme.py --plan              # first take what `storm plan` says of the recipes

The script writes between the comments `<!-- figures: NAME -->` and `<!-- end -->`. `tests/test_readme.py` fails if README.md
is not what it writes, if `storm plan` says something else, or if a record is not in `benchmarks/RESULTS.md`.
"""

import argparse
import datetime
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RECORDS = ROOT / "benchmarks" / "records.json"
FORMS = ("with_options", "without_options")
BASELINES = {
    "direct": "direct answer, same network and data",
    "chain_of_thought": "chain of thought, in sentences",
    "terse_chain": "chain of thought, one word a step",
}
INTERVENTIONS = ("zero", "noise_per_dataset", "mean_over_questions", "follows_donor")
WORLDS = {
    "shuffle": "`shuffle`: a ball under one of four cups",
    "bounce": "`bounce`: a ball among deflectors",
    "order": "`order`: which shape came when",
    "order_without_bottleneck": "`order`, without the latent bottleneck",
    "lattice": "`lattice`: a pattern of 48 bits",
}

Records = Mapping[str, Any]

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text: str, records: Records) -> str:
    """Return the README with the figures of these records."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]](records)}\n\n{block[3]}", text)


def film(records: Records) -> str:
    """Caption of the film."""
    figures = records["imagine"]["figures"]
    return (
        "*Input clip, thought video (used in training only), and the model's own latents at inference, rendered by a small\n"
        "decoder that was trained on thought videos alone (`storm imagine`). Each picture is the end of one step. In\n"
        f"{figures['frames_with_the_true_state']} of {figures['frames']} rendered frames the ball is under the correct cup.*"
    )


def demo(records: Records) -> str:
    """Table of the demo: the model, its latents replaced, and its baselines."""
    figures = records["demo"]["figures"]
    passes = figures["forward_passes"]
    rows = [("**STORM**", "storm", passes["storm"])]
    rows += [(f"STORM, latents: `{name.replace('follows_', '')}`", name, passes["storm"]) for name in INTERVENTIONS]
    rows += [(title, name, passes[name]) for name, title in BASELINES.items()]
    cells = [(title, *(percent(figures[form][name]) for form in FORMS), str(count)) for title, name, count in rows]
    naive = records["naive_targets"]["figures"]
    shares = (percent(naive[form]["storm"]) for form in FORMS)
    cells.append(("STORM on raw targets (`--naive-targets`)", *shares, str(naive["forward_passes"]["storm"])))
    return table(("accuracy, %", "options given", "open question", "forward passes"), cells)


def pretrained(records: Records) -> str:
    """Table of the pretrained model: thinking and its latents replaced, a direct answer, and the language that is left."""
    figures = records["pretrained"]["figures"]
    passes = figures["forward_passes"]
    rows = [("**STORM**", "storm", passes["storm"])]
    rows += [(f"STORM, latents: `{name.replace('follows_', '')}`", name, passes["storm"]) for name in INTERVENTIONS]
    rows.append(("direct answer, trained whole", "direct", passes["direct"]))
    cells = [(title, *(percent(figures[form][name]) for form in FORMS), str(count)) for title, name, count in rows]
    same, asked = figures["answered_as_before"]
    before, after = figures["perplexity"]
    words = (
        f"Without latents, {same} of {asked} plain prompts are answered as before, word for word, and the perplexity of plain text is\n"
        f"{after:.2f} ({before:.2f} before)."
    )
    return table(("accuracy, %", "usual question", "unseen wordings", "forward passes"), cells) + "\n\n" + words


def counterfactual(records: Records) -> str:
    """Sentence about edits in the middle of the rollout."""
    figures = records["counterfactual"]["figures"]
    return (
        "Replace one latent in the middle of the rollout, and the answer becomes what the simulator says would have followed in\n"
        f"{percent(figures['follow_the_simulator'])} % of {sum(figures['changed_questions']):,} cases "
        "(`python benchmarks/counterfactual.py runs/demo`)."
    )


def worlds(records: Records) -> str:
    """Table of the synthetic tasks."""
    cells = [(title, *world_cells(records[name])) for name, title in WORLDS.items()]
    return table(("accuracy, %", "seeds", "chance", "direct answer", "STORM", "latents zeroed"), cells)


def world_cells(record: Records) -> tuple[str, ...]:
    """Seeds and accuracies of one task; of several seeds the lowest and the highest."""
    figures = record["figures"]
    names = ("chance", "direct", "storm", "zero")
    return (str(len(record["seeds"])), *(span(figures[name]) for name in names))


def plans(records: Records) -> str:
    """Table of the recipes for large backbones."""
    cells = [
        (plan["name"], plan["gpus"], f"{plan['gibibytes']:.1f}", f"{plan['hours']:.1f}")
        for plan in records["plans"]["rows"]
    ]
    hours = f"hours for {records['plans']['clips']:,} clips"
    return table(("recipe", "GPUs", "GiB each", hours), cells)


BLOCKS: dict[str, Callable[[Records], str]] = {
    "film": film,
    "pretrained": pretrained,
    "demo": demo,
    "counterfactual": counterfactual,
    "worlds": worlds,
    "plans": plans,
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown; all columns but the first are numbers."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100 * share:.1f}"


def span(shares: float | list[float] | None) -> str:
    """Write a share, the range of several, or a dash for what was not run."""
    if shares is None:
        return "-"
    if isinstance(shares, float):
        return percent(shares)
    ends = dict.fromkeys((percent(min(shares)), percent(max(shares))))
    return " to ".join(ends)


def demo_record(run: Path) -> dict[str, Any]:
    """Read the record of a run of `storm demo`."""
    return record_of_run(run, BASELINES, "storm demo --out runs/demo")


def record_of_run(run: Path, baselines: Iterable[str], command: str) -> dict[str, Any]:
    """Read accuracies and costs of a run that a command made, but for its seed."""
    results = {name: json.loads((run / "arms" / name / "results.json").read_text()) for name in ("storm", *baselines)}
    figures: dict[str, Any] = {
        "forward_passes": {name: round(result["forward_passes"]) for name, result in results.items()}
    }
    for form in FORMS:
        measured = {name: result if form == "with_options" else result["open"] for name, result in results.items()}
        shares = {name: measured["storm"]["interventions"][name] for name in INTERVENTIONS}
        shares |= {name: result["accuracy"] for name, result in measured.items()}
        figures[form] = {name: round(share, 3) for name, share in shares.items()}
    report = json.loads((run / "report.json").read_text())
    day = datetime.datetime.fromtimestamp((run / "report.json").stat().st_mtime, datetime.UTC).date()
    return {
        "command": f"{command} --seed {report['seed']}",
        "date": day.isoformat(),
        "seeds": [report["seed"]],
        "figures": figures,
    }


def pretrained_record(run: Path) -> dict[str, Any]:
    """Read the record of a run of `storm demo --backbone smollm2`."""
    record = record_of_run(run, ("direct",), "storm demo --backbone smollm2 --out runs/smollm2")
    language = json.loads((run / "arms" / "storm" / "results.json").read_text())["language"]
    same = [
        pair
        for pair in zip(language["before"]["answers"], language["after"]["answers"], strict=True)
        if pair[0] == pair[1]
    ]
    record["figures"]["answered_as_before"] = [len(same), len(language["before"]["answers"])]
    record["figures"]["perplexity"] = [round(language[when]["perplexity"], 2) for when in ("before", "after")]
    return record


def planned(command: str, num_clips: int) -> dict[str, float]:
    """Return GiB of each GPU and hours of a stage, as `storm plan` says."""
    plan = plan_of(command)
    recipe = (ROOT / plan["recipe"]).read_text()
    rows = plan["num_processes"]
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        found = re.search(rf"^{name}: (\d+)", recipe, flags=re.MULTILINE)
        rows *= int(found[1]) if found else 1
    hours = num_clips / rows * plan["step_seconds"] / 3600
    return {"gibibytes": round(plan["peak_bytes"] / 2**30, 1), "hours": round(hours, 1)}


@cache
def plan_of(command: str) -> dict[str, Any]:
    """Run a command of `storm plan`, once in a process."""
    from typer.testing import CliRunner

    from storm_hf.cli import app

    return json.loads(CliRunner().invoke(app, [*shlex.split(command)[1:], "--json"], catch_exceptions=False).stdout)


def main() -> None:
    """Take new records where asked, and write README.md."""
    parser = argparse.ArgumentParser(description="Write the figures of README.md from the records of the benchmarks.")
    parser.add_argument("--demo", type=Path, help="Folder of a run whose record is taken first.")
    parser.add_argument("--pretrained", type=Path, help="The same of a run with a pretrained backbone.")
    parser.add_argument("--plan", action="store_true", help="Take what `storm plan` says first.")
    options = parser.parse_args()
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    if options.demo:
        records["demo"] = demo_record(options.demo)
    if options.pretrained:
        records["pretrained"] = pretrained_record(options.pretrained)
    if options.plan:
        for plan in records["plans"]["rows"]:
            plan |= planned(plan["command"], records["plans"]["clips"])
    if options.demo or options.pretrained or options.plan:
        RECORDS.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    README.write_text(written(README.read_text(encoding="utf-8"), records), encoding="utf-8")


if __name__ == "__main__":
    main()
