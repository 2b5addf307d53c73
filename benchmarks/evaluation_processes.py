"""`storm evaluate` in several processes against one: time, and the same answers.

    .venv-evaluation/bin/python benchmarks/evaluation_processes.py
    .venv-evaluation/bin/python benchmarks/evaluation_processes.py --clips 200 --processes 4

A random model of some twenty million parameters on invented questions in the form of Video-MME, three about each clip, one thread a
process. Every run loads the model and lmms-eval anew. The clock says how long a run took, beside whatever else the machine did; the
processor time of the process that had most of it is how long it takes where each process has a core of its own.
"""

import argparse
import os
import platform
import runpy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import psutil
import torch
from many_questions import build

from storm_hf.evaluation.harness.run import EvaluationRun, evaluate
from storm_hf.evaluation.results import read_samples


QUESTIONS_PER_CLIP = 3  # as Video-MME has
# The questions are those of the tests.
STANDIN = Path(__file__).parents[1] / "tests" / "evaluation" / "harness" / "standin.py"


def prepare(folder: Path, num_clips: int, new_tokens: int) -> EvaluationRun:
    """Write a model and questions, and return a run of one process."""
    model, processor = build(num_latents=4, hidden=512, layers=8)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    runpy.run_path(str(STANDIN))["write_videomme"](folder / "data", num_clips, QUESTIONS_PER_CLIP)
    settings = {"max_frames": 8, "max_new_tokens": new_tokens, "device": "cpu"}
    model_folder, out = str(folder / "model"), folder / "run"
    return EvaluationRun(model_folder, ("videomme",), out, ("storm",), data_root=folder / "data", settings=settings)


def measure(run: EvaluationRun) -> tuple[float, list[float]]:
    """Seconds by the clock, and those of the processor in each process."""
    busy: dict[int, float] = {}

    def look(*_: object) -> None:
        for process in psutil.Process().children():
            times = process.cpu_times()
            busy[process.pid] = times.user + times.system

    started = time.perf_counter()
    evaluate(run, look)
    return time.perf_counter() - started, sorted(busy.values(), reverse=True)


def answers(run: EvaluationRun) -> list[str]:
    """The answers in the order of the questions."""
    return [sample.completion for sample in read_samples(run.out)["storm"]["videomme"]]


def table(rows: dict[int, tuple[float, list[float]]]) -> str:
    """A row for each number of processes."""
    base_clock, base_busy = rows[1][0], rows[1][1][0]
    lines = [
        "| processes | clock, s | times as fast | processor of each, s | times as fast on idle cores |",
        "|---|---|---|---|---|",
    ]
    for number, (clock, busy) in rows.items():
        each = ", ".join(f"{seconds:.1f}" for seconds in busy)
        lines.append(f"| {number} | {clock:.1f} | {base_clock / clock:.2f} | {each} | {base_busy / busy[0]:.2f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for one process, and for several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    args = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(Path(folder), args.clips, args.new_tokens)
        expected = None
        for number in (1, *args.processes):
            each = replace(run, out=Path(folder) / f"run-{number}", num_processes=number)
            rows[number] = measure(each)
            expected = expected or answers(each)
            if answers(each) != expected:
                raise SystemExit(f"{number} processes answer otherwise than one.")
    print(
        f"{date.today():%d %B %Y}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}, torch {torch.__version__}: "
        f"{QUESTIONS_PER_CLIP * args.clips} questions about {args.clips} clips, answers of at most {args.new_tokens} tokens\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
