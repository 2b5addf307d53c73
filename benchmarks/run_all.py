"""Every long benchmark, in order of worth: what is missing is run, and a run that was stopped goes on where it was.

    python benchmarks/run_all.py --list            what there is, and what is finished
    python benchmarks/run_all.py                   a night of two cores, or more
    python benchmarks/run_all.py --only pretrained --hours 8
    python benchmarks/run_all.py --speed           what answers, training steps and commands cost, on an idle machine

The tables of each lie in runs/all/<name>.txt once it is finished, with the command, the date and the machine. A benchmark that is
not finished keeps what it has trained. With `--hours`, nothing is started after so many; what runs then is stopped as Ctrl-C stops it.
"""

import argparse
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from storm_hf.reporting import write_atomically


HERE = Path(__file__).resolve().parent
_PATIENCE_SECONDS = 600.0  # for a benchmark to save what it trains


@dataclass(frozen=True)
class Benchmark:
    """One command of this folder.

    Args:
        name (`str`):
            Name of its record.
        script (`str`):
            Its file.
        arguments (`str`, *optional*, defaults to `""`):
            Its arguments, where `{out}` is the folder of the records.
        python (`Path`, *optional*):
            Interpreter of another environment.
    """

    name: str
    script: str
    arguments: str = ""
    python: Path | None = None

    def arguments_for(self, out: Path) -> str:
        """Its arguments, as a shell takes them."""
        return self.arguments.replace("{out}", shlex.quote(str(out)))

    def command(self, out: Path) -> list[str]:
        """The command as processes take it."""
        return [str(self.python or sys.executable), str(HERE / self.script), *shlex.split(self.arguments_for(out))]

    @property
    def is_possible(self) -> bool:
        """Whether its environment is there."""
        return self.python is None or self.python.exists()

    def record(self, out: Path) -> Path:
        """Where its tables lie once it is finished."""
        return out / f"{self.name}.txt"


WORLDS = ("shuffle", "bounce", "order")
_MAIN = "direct_equal terse_equal storm"
ALL = (
    Benchmark("pretrained-shuffle", "pretrained.py", f"--world shuffle --seeds 0 --variants {_MAIN}"),
    Benchmark("pretrained-shuffle-whole", "pretrained.py", "--world shuffle --seeds 0 --trained whole --variants storm"),
    Benchmark("pretrained-shuffle-adapter", "pretrained.py", "--world shuffle --seeds 0 --trained adapter --variants storm"),
    *(Benchmark(f"pretrained-{world}", "pretrained.py", f"--world {world} --seeds 0 --variants {_MAIN}") for world in WORLDS[1:]),
    Benchmark("pretrained-shuffle-controls", "pretrained.py", "--world shuffle --seeds 0"),
    Benchmark("pretrained-shuffle-seeds", "pretrained.py", f"--world shuffle --seeds 0 1 --variants {_MAIN}"),
    Benchmark("lattice-seeds", "controls.py", f"--world lattice --seeds 0 1 2 --variants {_MAIN}"),
    *(Benchmark(f"{world}-controls", "controls.py", f"--world {world} --seeds 0 1 2") for world in WORLDS[1:]),
    Benchmark("shuffle-latents", "controls.py", "--world shuffle --part latents --seeds 0 1 2"),
    Benchmark("thought-sources", "thought_sources.py", "--seeds 0 1 2"),
    Benchmark("pretrained-lattice", "pretrained.py", f"--world lattice --seeds 0 --variants {_MAIN}"),
    Benchmark("natural", "natural.py"),
    Benchmark("natural-pixels", "natural.py", "--encoder pixels"),
)  # fmt: skip

_OURS = "--without 'text 512' row recompute Python pause"
SPEED = (
    Benchmark("speed-answers", "answers.py", "--prompts 256 2048 8192 --out {out}/answers.json"),
    Benchmark(
        "speed-answers-135m",
        "answers.py",
        f"--sizes 135m --rounds 3 --out {{out}}/answers-135m.json {_OURS}",
    ),
    Benchmark(
        "speed-compiled",
        "answers.py",
        f"--prompts 256 --caches compiled --out {{out}}/answers-compiled.json {_OURS}",
    ),
    Benchmark("speed-questions", "many_questions.py"),
    Benchmark("speed-training", "training_step.py"),
    Benchmark(
        "speed-evaluation", "evaluation_processes.py", python=HERE.parent / ".venv-evaluation" / "bin" / "python"
    ),
    Benchmark("speed-start-up", "start_up.py"),
    Benchmark("speed-cost", "cost_model.py"),
)


def run(benchmark: Benchmark, out: Path, deadline: float | None) -> bool:
    """Run a benchmark until it is finished or the time is over, and keep its tables if it is finished.

    Returns:
        `bool`: True if it is finished.
    """
    command = benchmark.command(out)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        tables, _ = process.communicate(timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=_PATIENCE_SECONDS)
        return False
    if process.returncode:
        raise SystemExit(f"{benchmark.name} ended with code {process.returncode}: {shlex.join(command)}")
    asked = f"python benchmarks/{benchmark.script} {benchmark.arguments_for(out)}"
    head = f"{asked}\n{date.today()}, {platform.machine()}, {os.cpu_count()} cores\n\n"
    write_atomically(benchmark.record(out), head + tables)
    return True


def main() -> None:
    """Run what is missing, the first first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="beginning of the names of those to run")
    parser.add_argument("--hours", type=float, help="after which nothing is started, and what runs is stopped")
    parser.add_argument("--list", action="store_true", help="print what there is and what is finished")
    parser.add_argument("--speed", action="store_true", help="those of speed instead")
    parser.add_argument("--out", type=Path, default=Path("runs/all"))
    arguments = parser.parse_args()
    deadline = None if arguments.hours is None else time.monotonic() + 3600 * arguments.hours
    offered = SPEED if arguments.speed else ALL
    chosen = [one for one in offered if one.name.startswith(arguments.only)]
    if not chosen:
        parser.error(f"no benchmark begins with {arguments.only}; there are {', '.join(one.name for one in offered)}")
    for benchmark in chosen:
        is_finished = benchmark.record(arguments.out).exists()
        if arguments.list or is_finished:
            sys.stdout.write(f"{'finished' if is_finished else 'missing '}  {benchmark.name}\n")
        elif not benchmark.is_possible:
            sys.stdout.write(f"left out  {benchmark.name}: there is no {benchmark.python}, run `make evaluation`\n")
        elif not run(benchmark, arguments.out, deadline):
            sys.stdout.write(f"stopped   {benchmark.name}: the same command goes on\n")
            return


if __name__ == "__main__":
    main()
