"""A pretrained language model that thinks in latents: every baseline at equal updates, what is used, and what is not lost.

    python benchmarks/pretrained.py --world shuffle --seeds 0
    python benchmarks/pretrained.py --world shuffle --seeds 0 --trained whole       all weights, held to the language by plain rows
    python benchmarks/pretrained.py --world shuffle --seeds 0 --trained adapter     LoRA that acts everywhere, merged at the end
    python benchmarks/pretrained.py --world shuffle --seeds 0 1 --variants direct_equal terse_equal storm
    python benchmarks/pretrained.py --world shuffle --seeds 0 --trained whole --keep-language 0    what the plain rows are worth
    python benchmarks/pretrained.py --world shuffle --updates 2 --num-train 24       a rehearsal, in which nothing is learned

SmolLM2-135M-Instruct inside Qwen2.5-VL (`make demo-pretrained` installs it), with the variants of `benchmarks/controls.py`. Each
setting and seed lives in a folder of its own; what has been trained is not trained again, and a run that was stopped continues.
Tables: accuracy with the usual question and in wordings never trained on, use of the latents in both, accuracy by depth, and plain
language after training (perplexity on held-out text, plain prompts answered as before).
"""

import argparse
import dataclasses
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from controls import WORKERS, Run, accuracy_cells, depths_table, estimate, rehearsal, task_of
from rich.console import Console
from variants import controls
from worlds import table

from storm_hf.demo import DemoFolder, DemoRecipe, demo_recipe
from storm_hf.demo.language import read_before, read_language
from storm_hf.demo.report_data import read_interventions
from storm_hf.demo.stages import prepare
from storm_hf.demo.tasks import run_tasks
from storm_hf.evaluation.bootstrap import wilson_interval
from storm_hf.worlds import WORLD_NAMES


RANK = 32
EVERYWHERE = {"thought_adapter_rank": None, "keep_language": 1.0, "language_batch_size": 4}
USE = ("zero", "noise_per_dataset", "mean_over_questions", "latents_only", "follows_donor")


def make_recipe(arguments: argparse.Namespace, seed: int) -> DemoRecipe:
    """The demo's recipe for the pretrained backbone, with the settings that are asked for."""
    recipe = demo_recipe(arguments.world, seed, backbone="smollm2")
    if arguments.updates is not None:
        recipe = rehearsal(recipe, arguments.updates, arguments.num_train)
    if arguments.trained != "thought":
        recipe = dataclasses.replace(recipe, **EVERYWHERE, lora_rank=RANK if arguments.trained == "adapter" else None)
    kept = arguments.keep_language
    return recipe if kept is None else dataclasses.replace(recipe, keep_language=kept)


def make_run(arguments: argparse.Namespace, seed: int, console: Console) -> Run:
    """Prepare one seed (clips, backbone, base, features) and choose its variants."""
    recipe = make_recipe(arguments, seed)
    parts = [arguments.world, str(seed), arguments.trained]
    parts += [] if arguments.keep_language is None else [f"keep{arguments.keep_language:g}"]
    parts += [] if arguments.updates is None else [f"{arguments.updates}-updates"]
    folder = DemoFolder((arguments.out / "-".join(parts)).resolve())
    prepare(folder, recipe, console)
    variants = controls(recipe)
    names = arguments.variants or list(variants)
    return Run(folder, recipe, tuple(variants[name] for name in names))


def accuracy_table(runs: Sequence[Run]) -> str:
    """Tabulate the accuracy on deep clips, each with its 95 % interval, in both forms of the question."""
    rows = []
    for variant in runs[0].variants:
        results = [run.results(variant.name) for run in runs]
        unseen = [with_interval(one["open"]["accuracy"], run) for one, run in zip(results, runs, strict=True)]
        cells = *accuracy_cells(runs, variant.name), *unseen, f"{results[0]['forward_passes']:.1f}"
        rows.append([variant.title, str(variant.num_updates), *cells])
    seeds = [f"seed {run.recipe.seed}" for run in runs]
    second = [f"{seed}, {runs[0].recipe.second_form}" for seed in seeds]
    return table(["variant, deep clips", "updates", *seeds, "mean", *second, "forward passes"], rows)


def with_interval(accuracy: float, run: Run) -> str:
    """Write an accuracy on the deep clips with its 95 % interval."""
    low, high = wilson_interval(accuracy, sum(run.recipe.test_depths[depth] for depth in run.recipe.deep))
    return f"{accuracy:.3f} ({low:.2f}-{high:.2f})"


def use_table(runs: Sequence[Run]) -> str:
    """Tabulate what becomes of the answers of variants with latents, seed by seed and form by form."""
    rows = []
    for run in runs:
        for variant in run.variants:
            results = run.results(variant.name)
            for form, measured in (("usual", results), (run.recipe.second_form, results["open"])):
                if "interventions" in measured:
                    found = read_interventions(measured["interventions"])
                    cells = [f"{found[name]:.3f}" if name in found else "-" for name in ("own", *USE)]
                    rows.append([variant.title, str(run.recipe.seed), form, *cells])
    return table(["latents of", "seed", "question", "own", *USE], rows)


def reply_table(runs: Sequence[Run]) -> str:
    """Tabulate the correct answers in unseen wordings by the form of the reply that is asked for."""
    rows = []
    for run in runs:
        for variant in run.variants:
            counts = run.results(variant.name)["open"]["by_reply"]
            cells = [f"{correct} of {asked}" for correct, asked in counts.values()]
            rows.append([variant.title, str(run.recipe.seed), *cells])
    forms = runs[0].results(runs[0].variants[0].name)["open"]["by_reply"]
    return table([f"{runs[0].recipe.second_form}, reply", "seed", *forms], rows)


def language_table(runs: Sequence[Run]) -> str:
    """Tabulate the plain language before and after, without latents."""
    rows = []
    for run in runs:
        rows.append(["before", str(run.recipe.seed), f"{read_before(run.folder).perplexity:.2f}", "-", "-"])
        for variant in run.variants:
            found = read_language(run.results(variant.name))
            same = sum(pair.is_same for pair in found.pairs)
            cells = (f"{found.after.perplexity:.2f}", f"{found.perplexity_ratio:.3f}", f"{same} of {len(found.pairs)}")
            rows.append([variant.title, str(run.recipe.seed), *cells])
    return table(["num_latents = 0", "seed", "perplexity", "ratio", "answered as before"], rows)


def main() -> None:
    """Prepare, estimate, train what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="shuffle", choices=WORLD_NAMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--trained", default="thought", choices=("thought", "whole", "adapter"), help="weights that learn"
    )
    parser.add_argument("--keep-language", type=float, help="weight of the divergence from the model before")
    parser.add_argument("--variants", nargs="+", help="names of those to train and show, instead of all")
    parser.add_argument("--updates", type=int, help="of every training, for a rehearsal in a folder of its own")
    parser.add_argument("--num-train", type=int, default=24, help="clips of a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    arguments = parser.parse_args()
    known = controls(make_recipe(arguments, 0))
    if unknown := sorted({*(arguments.variants or ())} - set(known)):
        parser.error(f"no variant is called {', '.join(unknown)}; there are {', '.join(known)}")
    console = Console(stderr=True)
    runs = [make_run(arguments, seed, console) for seed in arguments.seeds]
    console.print(estimate(runs))
    for run in runs:
        run_tasks([task_of(run, one) for one in run.waiting()], run.folder.logs, workers=WORKERS, console=console)
    out = Console(soft_wrap=True)
    out.print(f"{arguments.world}, seeds {arguments.seeds}, {date.today()}, {platform.machine()}\n", markup=False)
    for text in (accuracy_table(runs), use_table(runs), depths_table(runs), reply_table(runs), language_table(runs)):
        out.print(text + "\n", markup=False)


if __name__ == "__main__":
    main()
