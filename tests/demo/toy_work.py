"""Work for the demo's processes that takes no time: what it did is told by files.

python -m tests.demo.toy_work FOLDER      runs three tasks, two at once, until Ctrl-C
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from rich.console import Console

from storm_hf.demo import tasks
from storm_hf.demo.tasks import Task, run_tasks


SECONDS_AT_MOST = 60
Report = Callable[[int], None]


def note(folder: Path, line: str) -> None:
    """Add a line to what all workers say."""
    with (folder / "events").open("a") as file:
        file.write(f"{line}\n")


def events(folder: Path) -> list[str]:
    return (folder / "events").read_text().splitlines() if (folder / "events").exists() else []


def wait_for(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_AT_MOST
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def quick(folder: Path, name: str, report: Report) -> None:
    note(folder, f"{name} begins")
    print("words of", name)  # noqa: T201
    report(1)
    note(folder, f"{name} ends")


def meet(folder: Path, name: str, other: str, report: Report) -> None:
    """End only once the other has begun."""
    note(folder, f"{name} begins")
    wait_for(lambda: f"{other} begins" in events(folder))


def fail(folder: Path, name: str, report: Report) -> None:
    """Fail once the other task runs."""
    wait_for(lambda: "patient begins" in events(folder))
    raise ValueError("the reason why it failed")


def die(folder: Path, name: str, report: Report) -> None:
    os._exit(3)


def burn(folder: Path, seconds: float, report: Report) -> None:
    """Compute for some CPU seconds, a report at a time."""
    steps = count(1)
    while time.process_time() < seconds:
        report(next(steps))


def report_until_seen(folder: Path, report: Report) -> None:
    """Report ever more finished steps, until whoever watches the screen leaves a file."""
    steps = count(1)

    def is_seen() -> bool:
        report(next(steps))
        return (folder / "seen").exists()

    wait_for(is_seen)


def patient(folder: Path, name: str, report: Report) -> None:
    """Wait for Ctrl-C; then finish the running step and stop, as training does."""
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    note(folder, f"{name} begins")
    wait_for(lambda: bool(heard))
    time.sleep(1.5)  # a second interrupt would come by now
    note(folder, f"{name} heard {len(heard)}")
    raise KeyboardInterrupt


if __name__ == "__main__":
    out = Path(sys.argv[1])
    names = ("patient", "second", "third")
    tasks.PRELOADED = "__main__"  # toy work needs no trainers, which take seconds to import
    try:
        run_tasks([Task(name, name, 1, patient, (out, name)) for name in names], out, 2, Console(file=sys.stdout))
    except KeyboardInterrupt:
        note(out, "parent is interrupted")
        sys.exit(130)
