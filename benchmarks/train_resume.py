"""Kill a training again and again, and compare what the same command ends with to a run that was not killed.

    python benchmarks/train_resume.py
    python benchmarks/train_resume.py --kills 10 --only "answer, 2"

`trainers/align.py` and `trainers/answer.py` train a tiny backbone, whole and with LoRA, on one process and on two over gloo,
started by `accelerate launch`. A run is killed with SIGKILL, and the same command is given again, until it was killed often
enough; then it is left to its end. The seed draws the moments: while it starts, inside a step, while a checkpoint or the final
model is written; and of two processes, whether one of them dies or all.

After each kill the newest complete checkpoint must be that of the undisturbed run, to the last bit; at the end the
weights must. Exit code 1 if any differs.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny backbone and rows are those of the tests

from tests.trainers import killing
from tests.trainers.killing import Training


HEAD = ("run", "kill", "killed while", "who", "complete", "half written", "lost", "verdict")
START_SECONDS = 12.0  # that imports take on an idle machine
STEP_SECONDS = 0.5  # about what comes between two checkpoints of the tiny backbone
SAVE_SECONDS = 0.1


@dataclass(frozen=True)
class Moment:
    """When a run is killed, and which of its processes.

    Args:
        name (`str`):
            `starting`, `training`, `saving` or `ending`.
        number (`int`):
            Which of the coming checkpoints is waited for.
        seconds (`float`):
            Time after that.
        victim (`int`, *optional*):
            Process that is killed; by default all are.
    """

    name: str
    number: int
    seconds: float
    victim: int | None

    @property
    def who(self) -> str:
        """The killed processes, for people."""
        return "all" if self.victim is None else f"rank {self.victim}"


def draw_moments(kills: int, num_processes: int, seed: str) -> list[Moment]:
    """Draw moments of all kinds; the final model is written last."""
    draw = random.Random(seed)
    kinds = ["saving", "training", "saving", "training", "starting"]
    names = [kinds[number % len(kinds)] for number in range(kills - 1)]
    draw.shuffle(names)
    longest = {"starting": START_SECONDS, "training": STEP_SECONDS, "saving": SAVE_SECONDS, "ending": SAVE_SECONDS}
    moments = []
    for name in [*names, "ending"][-kills:]:
        dies_alone = num_processes > 1 and name != "starting" and draw.random() < 0.5
        victim = draw.randrange(num_processes) if dies_alone else None
        moments.append(Moment(name, draw.randint(1, 2), draw.uniform(0, longest[name]), victim))
    return moments


def wait_for(moment: Moment, process: "subprocess.Popen[bytes]", output: Path, num_steps: int) -> bool:
    """Wait for a moment; false if the run ended before."""
    first = killing.newest_step(output)
    target = min(first + 2 * moment.number, num_steps)
    final = [output / name for name in (".model.unfinished", *killing.WEIGHTS)]
    has_come = {
        "starting": lambda: True,
        "training": lambda: killing.newest_step(output) >= target,
        "saving": lambda: (output / f"checkpoint-{target}").exists(),
        "ending": lambda: any(path.exists() for path in final),
    }[moment.name]
    if not killing.wait_until(process, has_come):
        return False
    time.sleep(moment.seconds)
    return process.poll() is None


def kill_at(moment: Moment, command: list[str], output: Path, num_steps: int, log: Path) -> bool:
    """Start a run and kill it; false if it ended before."""
    with killing.started(command, log) as process:
        if not wait_for(moment, process, output, num_steps):
            return False
        killing.kill(process, moment.victim)
        return process.returncode != 0


def rows_of(training: Training, kills: int, seed: int, place: Path) -> Iterator[list[str]]:
    """Train in peace, then under fire; one row for each kill and one for the end."""
    folder = place / training.title.replace(" ", "_").replace(",", "")
    folder.mkdir()
    peace, output, log = folder / "peace", folder / "killed", folder / "log.txt"
    check(killing.run(training.command(place, peace, "--save_total_limit", "1000"), log), log)
    command = training.command(place, output, "--save_total_limit", "2")
    complete = 0
    for number, moment in enumerate(draw_moments(kills, training.num_processes, f"{seed}, {training.title}"), 1):
        is_killed = kill_at(moment, command, output, training.num_steps, log)
        before, complete = complete, killing.newest_step(output)
        is_same = complete == 0 or same_weights(peace, output, f"checkpoint-{complete}")
        lost = max(before - complete, 0)
        half = ", ".join(map(str, killing.half_written(output))) or "-"
        verdict = "ended before" if not is_killed else "identical" if is_same and not lost else "DIFFERENT"
        cells = [moment.name, moment.who, f"{complete} of {training.num_steps}", half, str(lost), verdict]
        yield [training.title, str(number), *cells]
    check(killing.run(command, log), log)
    different = differences(peace, output)
    step = f"{killing.newest_step(output)} of {training.num_steps}"
    yield [training.title, "end", "-", "-", step, "-", "-", f"DIFFERENT: {different}" if different else "identical"]


def differences(peace: Path, output: Path) -> str:
    """Name the weights and the files in which two final models differ; empty if there are none."""
    one, other = killing.weights_of(peace), killing.weights_of(output)
    weights = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    files = sorted(killing.published_files(peace) ^ killing.published_files(output))
    return ", ".join([*weights, *files])


def same_weights(one: Path, other: Path, name: str) -> bool:
    """Compare the weights of two folders, bit for bit."""
    return killing.weights_of(one / name) == killing.weights_of(other / name)


def check(exit_code: int, log: Path) -> None:
    """End with the log of a run that failed by itself."""
    if exit_code:
        raise SystemExit(log.read_text(encoding="utf-8", errors="replace")[-4000:])


def trainings() -> list[Training]:
    """All runs: both stages, one and two processes, whole and with LoRA."""
    return [
        Training(stage, num_processes, lora)
        for stage in ("align", "answer")
        for num_processes in (1, 2)
        for lora in (False, True)
    ]


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        place = killing.prepare(Path(temporary))
        for training in trainings():
            if args.only in training.title:
                for row in rows_of(training, args.kills, args.seed, place):
                    print(f"| {' | '.join(row)} |", flush=True)
                    rows.append(row)
    killed = [row for row in rows if row[1] != "end" and row[-1] != "ended before"]
    ends = [row for row in rows if row[1] == "end"]
    print(f"\n{len(killed)} kills; {sum(row[-1] == 'identical' for row in ends)} of {len(ends)} runs ended identical")
    return int(any(row[-1].startswith("DIFFERENT") for row in rows) or len(killed) < args.kills * len(ends))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each run")
    parser.add_argument("--only", default="", help="runs whose name holds this, such as 'answer, one process'")
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(parser.parse_args()))
