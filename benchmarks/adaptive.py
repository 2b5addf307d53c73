"""Thoughts that end by themselves: as right as fixed ones with fewer latents, and longer where there is more to think.

    python benchmarks/adaptive.py runs/adaptive/shuffle-0 --seed 0
    python benchmarks/adaptive.py runs/adaptive/smollm2 --run runs/smollm2 --only fixed adaptive     from `make demo-pretrained`

`shuffle` with the swaps before the steps in which nothing happens, so that a clip of d swaps is thought through after d latents; as many
clips of each depth from 0 to 6 in training and in the test. From one Stage I: `fixed`, Stage II with all K latents; `drawn`, with K
drawn for each step; `adaptive`, with a halting head. What has been trained is not trained again. Accuracy with every fixed number of
latents is measured beside that of thoughts that halt.

With `--run` base, Stage I and `fixed` are those of a finished `storm demo --backbone smollm2`, which stays as it is, and the language
of the model with a head is put beside that of its backbone. Its Stage I saw the steps in which nothing happens anywhere in the clip;
those that come last are among them.
"""

import argparse
import dataclasses
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from worlds import table

from storm_hf.atomic import read_json
from storm_hf.demo import DemoFolder, DemoRecipe, Training, Variant, data, demo_recipe
from storm_hf.demo.language import compare_language
from storm_hf.demo.stages import prepare
from storm_hf.demo.tasks import Task, Usage, run_tasks
from storm_hf.demo.training import train_variant
from storm_hf.demo.variants import storm_variant
from storm_hf.diagnostics.halting import describe_halting
from storm_hf.evaluation.batch import accuracy, answer_questions
from storm_hf.evaluation.language import LanguageReport
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.reporting import write_atomically


MOST_LATENTS, FEWEST_CORRELATION, MOST_LOST = 0.7, 0.6, 0.01  # what counts as adaptive
WORKERS = 1


@dataclass(frozen=True)
class Outcome:
    """Accuracies and lengths of one model.

    Args:
        variant (`str`):
            Name of the training.
        accuracies (`dict[int, float]`):
            Accuracy with each fixed number of latents.
        accuracy (`float`, *optional*):
            Accuracy of thoughts that halt; None without a halting head.
        mean_latents (`float`, *optional*):
            Latents that they use.
        correlation (`float`, *optional*):
            Rank correlation of the latents used with the number of swaps.
        latents_by_depth (`dict[int, float]`, *optional*):
            Mean latents used by number of swaps.
    """

    variant: str
    accuracies: dict[int, float]
    accuracy: float | None = None
    mean_latents: float | None = None
    correlation: float | None = None
    latents_by_depth: dict[int, float] | None = None


def mixed_recipe(recipe: DemoRecipe, num_train: int, num_tests: int) -> DemoRecipe:
    """The demo of `shuffle`, with clips whose events end early, evenly of each depth."""
    return dataclasses.replace(
        recipe,
        knobs={**recipe.knobs, "rests_last": 1},
        test_depths=dict.fromkeys(recipe.test_depths, num_tests),
        num_train=num_train,
    )


def adopt(run: DemoFolder, folder: DemoFolder, recipe: DemoRecipe, console: Console) -> None:
    """Begin with the models of a finished demo, and with clips of one's own."""
    sources = {
        folder.base: run.base,
        folder.variant("align"): run.variant("align"),
        folder.variant("fixed"): run.storm,
        folder.language: run.language,
    }
    clips = data.world_recipe(recipe).num_episodes
    tasks = [
        Task("render", "Drawing clips and thought videos", clips, data.render, (folder, recipe, WORKERS)),
        Task("thoughts", "Encoding thought videos", clips, data.encode_thoughts, (folder, recipe)),
        Task("clips", "Encoding question clips", clips, data.encode_clips, (folder, recipe)),
    ]
    with folder.claimed(recipe):
        for target, source in sources.items():
            link_files(source, target)
        for name in ("align", "fixed"):
            folder.once(f"adaptive_{name}", Usage)
        for task in tasks:
            folder.once(
                f"adopt_{task.name}", partial(run_tasks, [task], folder.logs, workers=WORKERS, console=console)
            )


def link_files(source: Path, target: Path) -> None:
    """Make a folder with links to the files of another one, unless it is there; what is written there later is its own."""
    if target.exists():
        return
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (target / file.name).symlink_to(file)


def variants(
    recipe: DemoRecipe, align_updates: int, num_updates: int, learning_rate: float, weight: float
) -> list[Variant]:
    """Stage II in three forms, from one Stage I."""
    storm = storm_variant(recipe)
    assert storm.start is not None
    align = dataclasses.replace(storm.start, training=Training(align_updates, recipe.trainings["align"].learning_rate))
    training = Training(num_updates, learning_rate)
    halting = {"halting": True, "halting_weight": weight, "halting_learning_rate": 1e-2}

    def form(name: str, title: str, **settings: Any) -> Variant:
        given = {**storm.settings, **settings}
        changed = {"start": align, "training": training, "settings": given, "is_shown": False}
        return dataclasses.replace(storm, name=name, title=title, **changed)

    return [
        form("fixed", "All latents"),
        form("drawn", "K drawn", min_num_latents=1),
        form("adaptive", "Halting head", **halting),
    ]


def train(folder: DemoFolder, recipe: DemoRecipe, variant: Variant, console: Console) -> None:
    """Train a variant and what it starts from, unless it was done before."""
    if variant.start is not None:
        train(folder, recipe, variant.start, console)
    task = Task(variant.name, variant.title, variant.num_updates, train_variant, (folder, recipe, variant))
    folder.once(f"adaptive_{variant.name}", partial(run_tasks, [task], folder.logs, workers=WORKERS, console=console))


def measure(folder: DemoFolder, variant: Variant) -> Outcome:
    """Answer the test clips with every number of latents, and with as many as the model wants."""
    model, processor = data.load(folder.checkpoint(variant.name))
    rows = data.dataset(folder, "test", with_thoughts=False).to_list()
    bound = model.config.num_latents

    def accuracy_with(num_latents: int) -> float:
        prompts = PromptEncoder(processor, model.config, num_latents)
        return accuracy(answer_questions(model, prompts, rows, max_new_tokens=4), rows)

    fixed = {num_latents: accuracy_with(num_latents) for num_latents in range(1, bound + 1)}
    if not model.config.halting_head:
        return Outcome(variant.name, fixed)
    prompts = PromptEncoder(processor, model.config, bound)
    answers = answer_questions(model, prompts, rows, max_new_tokens=4, halting=True)
    found = describe_halting(answers, rows)
    depths = np.array([int(row["depth"]) for row in rows])
    used = np.array([answer.num_latents for answer in answers])
    by_depth = {int(depth): float(used[depths == depth].mean()) for depth in np.unique(depths)}
    return Outcome(variant.name, fixed, found.accuracy, found.mean_latents, found.depth_correlation, by_depth)


def language_of(folder: DemoFolder, name: str) -> str:
    """Say what is left of the language of a pretrained backbone in one of its models."""
    file = folder.path / f"language_{name}.json"
    if not file.exists():
        write_atomically(file, compare_language(folder, folder.checkpoint(name), name).to_json())
    found = LanguageReport.from_json(file.read_text(encoding="utf-8"))
    same = sum(pair.is_same for pair in found.pairs)
    perplexities = f"{found.before.perplexity:.2f} before, {found.after.perplexity:.2f} after"
    return f"perplexity of plain text: {perplexities}; {same} of {len(found.pairs)} plain prompts answered as before"


def verdict(fixed: Outcome, adaptive: Outcome) -> str:
    """Say whether thoughts that halt are as right, shorter, and longer where it is needed."""
    assert adaptive.accuracy is not None
    assert adaptive.mean_latents is not None
    bound = max(fixed.accuracies)
    checks = {
        f"accuracy within {MOST_LOST}": adaptive.accuracy >= fixed.accuracies[bound] - MOST_LOST,
        f"at most {MOST_LATENTS:.0%} of the latents": adaptive.mean_latents <= MOST_LATENTS * bound,
        f"rank correlation of {FEWEST_CORRELATION} or more": (adaptive.correlation or 0) >= FEWEST_CORRELATION,
    }
    return "; ".join(f"{name}: {'yes' if is_met else 'no'}" for name, is_met in checks.items())


def show(outcomes: list[Outcome]) -> str:
    """Tabulate the accuracies."""
    bound = max(outcomes[0].accuracies)
    head = ["Stage II", *(f"K={number}" for number in range(1, bound + 1)), "halting", "latents", "correlation"]
    rows = []
    for one in outcomes:
        extra = ("-", "-", "-")
        if one.accuracy is not None:
            correlation = "-" if one.correlation is None else f"{one.correlation:.2f}"
            extra = (f"{one.accuracy:.3f}", f"{one.mean_latents:.2f}", correlation)
        rows.append([one.variant, *(f"{value:.3f}" for value in one.accuracies.values()), *extra])
    return table(head, rows)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where clips, base and variants live")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="folder of a finished `storm demo --backbone smollm2` to go on from")
    parser.add_argument("--num-train", type=int, default=3000, help="clips trained on")
    parser.add_argument("--num-tests", type=int, default=64, help="test clips of each depth")
    parser.add_argument("--align-updates", type=int, default=300, help="of Stage I")
    parser.add_argument("--updates", type=int, default=100, help="of Stage II")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate of Stage II")
    parser.add_argument("--weight", type=float, default=0.05, help="of the divergence from the prior")
    parser.add_argument("--only", nargs="+", help="names of the forms of Stage II, by default all")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    backbone = "smollm2" if arguments.run else "tiny"
    demo = demo_recipe("shuffle", arguments.seed, backbone=backbone)
    recipe = mixed_recipe(demo, arguments.num_train, arguments.num_tests)
    folder = DemoFolder(arguments.folder.resolve())
    if arguments.run:
        run = DemoFolder(arguments.run.resolve())
        if not run.is_finished("storm"):
            parser.error(
                f"expected a finished `storm demo --backbone smollm2` in {arguments.run}, got a folder without its results"
            )
        run.open(demo)  # of the same seed and settings
        adopt(run, folder, recipe, console)
    else:
        prepare(folder, recipe, console)
    outcomes = {}
    lengths = (arguments.align_updates, arguments.updates)
    for variant in variants(recipe, *lengths, arguments.rate, arguments.weight):
        if arguments.only and variant.name not in arguments.only:
            continue
        train(folder, recipe, variant, console)
        file = folder.variant(variant.name) / "adaptive.json"
        if not file.exists():
            write_atomically(file, json.dumps(asdict(measure(folder, variant)), indent=1) + "\n")
        outcomes[variant.name] = as_outcome(read_json(file))
    out = Console(soft_wrap=True)
    out.print(show(list(outcomes.values())), markup=False)
    if {"fixed", "adaptive"} <= outcomes.keys():
        out.print(f"\n{verdict(outcomes['fixed'], outcomes['adaptive'])}")
        out.print(f"latents by swaps: {outcomes['adaptive'].latents_by_depth}")
    if arguments.run and "adaptive" in outcomes:
        out.print(language_of(folder, "adaptive"))


def as_outcome(record: dict[str, Any]) -> Outcome:
    """Read what was measured before."""
    return Outcome(**{**record, "accuracies": {int(number): value for number, value in record["accuracies"].items()}})


if __name__ == "__main__":
    main()
