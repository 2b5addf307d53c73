"""Does a trained model use its latents, and does a model that learned from naive targets not? `storm diagnose` on both.

    python benchmarks/causal_use.py --seeds 0 1 2                      trains what is missing under runs/causal_use
    python benchmarks/causal_use.py --run runs/demo --run runs/naive   looks at finished runs of `storm demo`

Asked are the deep test clips of the `shuffle` world (5 or 6 swaps). A model of the default recipe passes if zeros, noise and the mean
leave it within .05 of guessing, another clip's latents turn at least .95 of the answers into that clip's, and the verdict is
"used"; one of `--naive-targets` passes if the verdict is "not_used". A page for each run goes to `--out`.
"""

import argparse
from pathlib import Path

from rich.console import Console

from storm_hf.atomic import read_json
from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.demo import DemoFolder, run_demo
from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.diagnostics.questions import read_questions
from storm_hf.diagnostics.record import Diagnosis


NEAR_CHANCE = 0.05
FOLLOWS = 0.95
SHOWN = ("own", "zero", "noise_per_dataset", "mean_over_questions", "no_latents", "latents_only")
COLUMNS = ("run", "targets", "n", *SHOWN, "follows donor", "steered", "verdict", "as it should be")


def main() -> None:
    """Diagnose each run, and print one row per run."""
    arguments = _arguments()
    runs = [path.resolve() for path in arguments.run] or _trained(arguments.seeds, arguments.folder)
    out = Console(soft_wrap=True)
    out.print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for number, run in enumerate(runs):
        is_naive = bool(read_json(run / "recipe.json")["naive_targets"])
        found = diagnose_run(run, arguments.limit)
        write_diagnosis(arguments.out / f"{number}-{run.name}", found)
        out.print(_row(run, is_naive, found), markup=False)


def diagnose_run(run: Path, limit: int | None) -> Diagnosis:
    """Diagnose the checkpoint of a demo on its deep test clips."""
    model, processor = load_checkpoint(str(DemoFolder(run).storm))
    questions = read_questions(
        str(run),
        num_latents=model.config.num_latents,
        hidden_size=model.config.hidden_size,
        depths=read_json(run / "recipe.json")["deep"],
        limit=limit,
        checkpoint=str(DemoFolder(run).storm),
    )
    names = {"model": str(DemoFolder(run).storm), "dataset": str(run), "split": "test"}
    return diagnose(model, processor, questions, batch_size=256, names=names)


def _row(run: Path, is_naive: bool, found: Diagnosis) -> str:
    donor = found.effects["donor"]
    shares = [found.effects[name].accuracy.mean for name in SHOWN]
    follows = float("nan") if donor.follows_donor is None else donor.follows_donor.mean
    steered = (
        "-"
        if donor.steered is None
        else f"{donor.steered.mean:.3f} ({donor.steered.low:.3f} to {donor.steered.high:.3f})"
    )
    chance = found.chance or 0.0
    is_causal = all(abs(share - chance) <= NEAR_CHANCE for share in shares[1:4]) and follows >= FOLLOWS
    outcome = found.verdict.outcome
    is_right = outcome == "not_used" if is_naive else is_causal and outcome == "used"
    cells = [
        run.name,
        "naive" if is_naive else "whitened",
        str(found.num_questions),
        *(f"{share:.3f}" for share in shares),
    ]
    return "| " + " | ".join([*cells, f"{follows:.3f}", steered, outcome, "yes" if is_right else "NO"]) + " |"


def _trained(seeds: list[int], folder: Path) -> list[Path]:
    runs = []
    for seed in seeds:
        for is_naive in (False, True):
            run = folder / f"{'naive' if is_naive else 'whitened'}-{seed}"
            run_demo(run, seed=seed, naive_targets=is_naive)
            runs.append(run.resolve())
    return runs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, action="append", default=[], help="a finished run of `storm demo`; repeat it"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="without --run: train these, both ways"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/causal_use"), help="where runs are trained")
    parser.add_argument("--out", type=Path, default=Path("runs/causal_use/pages"), help="where pages go")
    parser.add_argument("--limit", type=int, help="most questions of each run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
