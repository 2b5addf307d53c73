import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from tests.demo import toy_work
from tests.demo.toy_work import events, wait_for

from storm_hf.demo.tasks import Task, Usage, run_tasks
from storm_hf.errors import StageError


@pytest.fixture
def run(tmp_path):
    """Run toy work, given by name, with arguments."""

    def run(*tasks, workers=2, total=1):
        made = [
            Task(arguments[0], f"Title of {arguments[0]}", total, work, (tmp_path, *arguments))
            for work, *arguments in tasks
        ]
        screen = io.StringIO()
        usage = run_tasks(made, tmp_path / "logs", workers, Console(file=screen, width=200, force_terminal=True))
        return usage, screen.getvalue()

    return run


def test_tasks_run_side_by_side(run):
    """Each waits for the other to begin."""
    run((toy_work.meet, "one", "other"), (toy_work.meet, "other", "one"))


def test_one_worker_does_one_after_the_other_in_their_order(run, tmp_path):
    run(*((toy_work.quick, name) for name in "abc"), workers=1)
    assert events(tmp_path) == [f"{name} {event}" for name in "abc" for event in ("begins", "ends")]


def test_words_of_a_task_are_in_its_log_and_not_on_the_screen(run, tmp_path, capfd):
    _, screen = run((toy_work.quick, "a"), (toy_work.quick, "b"))
    assert (tmp_path / "logs" / "a.log").read_text() == "words of a\n"
    assert (tmp_path / "logs" / "b.log").read_text() == "words of b\n"
    assert "words" not in screen + "".join(capfd.readouterr())


def test_screen_names_each_task_and_ends_at_its_total(run):
    _, screen = run((toy_work.quick, "a"), total=7)
    assert "Title of a" in screen
    assert "7/7" in screen


class WatchedScreen(io.StringIO):
    """Leaves a file when it shows a count between a task's first and its last."""

    def __init__(self, total: int, seen: Path) -> None:
        super().__init__()
        self.total, self.seen = total, seen

    def write(self, text: str) -> int:
        if {int(count) for count in re.findall(rf"(\d+)/{self.total}", text)} - {0, self.total}:
            self.seen.touch()
        return super().write(text)


def test_progress_is_shown_while_a_task_runs(tmp_path):
    """The task reports until the screen has shown it: it would never end if it were shown at its end alone."""
    task = Task("reports", "Reporting", 10**9, toy_work.report_until_seen, (tmp_path,))
    screen = WatchedScreen(task.total, tmp_path / "seen")
    run_tasks([task], tmp_path, 1, Console(file=screen, width=200, force_terminal=True))


def test_usage_holds_what_the_workers_computed(tmp_path):
    task = Task("burn", "Burning", 1, toy_work.burn, (tmp_path, 1.0))
    usage = run_tasks([task], tmp_path, 1, Console(file=io.StringIO()))
    assert usage.cpu_seconds >= 0.9
    assert usage.wall_seconds >= 0.5
    assert usage.peak_rss_mib > psutil.Process().memory_info().rss / 2**20 / 2


def test_usages_add_up():
    assert Usage(1, 2, 30) + Usage(10, 20, 3) == Usage(11, 22, 30)


def test_failure_tells_the_end_of_its_log_and_stops_the_others(run, tmp_path):
    started = time.monotonic()
    with pytest.raises(StageError) as failure:
        run((toy_work.patient, "patient"), (toy_work.fail, "fails"), (toy_work.quick, "never"))
    assert time.monotonic() - started < toy_work.SECONDS_AT_MOST / 2
    message = str(failure.value)
    assert message.startswith("Title of fails failed; its log is in ")
    assert message.rstrip().endswith("ValueError: the reason why it failed")
    assert "the reason why it failed" in (tmp_path / "logs" / "fails.log").read_text()
    assert events(tmp_path) == ["patient begins", "patient heard 1"]


def test_worker_that_dies_without_a_word_is_a_failure(run):
    with pytest.raises(StageError, match="exit code 3"):
        run((toy_work.die, "dies"))


@pytest.fixture
def demo_process(tmp_path):
    """Patient tasks in a process of their own, which Ctrl-C can be sent to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.demo.toy_work", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_each_worker_once_and_then_the_run(demo_process, tmp_path, number):
    wait_for(lambda: {"patient begins", "second begins"} <= set(events(tmp_path)))
    if number == signal.SIGINT:
        os.killpg(demo_process.pid, number)  # as a terminal does: to the parent and what it started
    else:
        demo_process.send_signal(number)
    out, err = demo_process.communicate(timeout=60)
    assert demo_process.returncode == 130
    assert "Traceback" not in err
    assert "Finishing the running step and saving" in out
    *of_workers, last = events(tmp_path)
    assert sorted(of_workers) == ["patient begins", "patient heard 1", "second begins", "second heard 1"]
    assert last == "parent is interrupted"


def test_workers_end_with_the_run_that_was_killed(demo_process, tmp_path):
    wait_for(lambda: {"patient begins", "second begins"} <= set(events(tmp_path)))
    workers = psutil.Process(demo_process.pid).children(recursive=True)
    assert len(workers) >= 3  # with the server that they come from
    demo_process.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    assert set(events(tmp_path)) == {"patient begins", "second begins"}


def test_ctrl_c_while_the_first_worker_starts_is_not_lost(demo_process, tmp_path):
    wait_for(
        lambda: any("forkserver" in " ".join(child.cmdline()) for child in psutil.Process(demo_process.pid).children())
    )
    os.killpg(demo_process.pid, signal.SIGINT)
    demo_process.communicate(timeout=60)
    assert demo_process.returncode == 130
    assert events(tmp_path) in (
        ["parent is interrupted"],
        ["patient begins", "patient heard 1", "parent is interrupted"],
    )
