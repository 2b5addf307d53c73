"""A stage as a process: what it prints is kept, its exit code too, and Ctrl-C lets it save."""

import json
import os
import signal
import sys
import time

import pytest
from tests.training.processes import finish, start

from storm_hf.curriculum import launch
from storm_hf.curriculum.launch import AccelerateLauncher, Ending, run_logged


# As `accelerate launch` does: a launcher that waits for the process which trains.
LAUNCHER = """
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)
"""
TRAINER = """
import signal, sys, time
def save(number, frame):
    print("saved")
    sys.exit(130)
signal.signal(signal.SIGINT, save)
print("training")
time.sleep(60)
"""
# A launcher that has not started what trains; how one that just has ends depends on the moment.
SLOW_LAUNCHER = """
import time
time.sleep(60)
print("training")
"""
DEAF_TRAINER = """
import signal, time
signal.signal(signal.SIGINT, lambda number, frame: print("asked"))
print("training")
while True:
    time.sleep(60)
"""


def run(code, log):
    return run_logged([sys.executable, "-c", code], log)


def test_what_a_stage_prints_is_shown_and_appended_to_its_log(tmp_path, capfdbinary):
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    ending = run("import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)", log)
    assert ending == Ending(0)
    assert log.read_text() == "before\nout\nerr\n"
    assert capfdbinary.readouterr().out == b"out\nerr\n"


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_exit_code_is_passed_on_as_a_shell_counts(code, expected, tmp_path):
    assert run(code, tmp_path / "log.txt") == Ending(expected)


def test_script_gets_its_arguments_by_file_and_accelerate_its_own(tmp_path):
    launch_stage = AccelerateLauncher(
        tmp_path, ("--num_processes", "2"), (sys.executable, "-c", "import sys; print(*sys.argv[1:])")
    )
    assert launch_stage("align", tmp_path / "arguments.yaml", tmp_path / "log.txt") == Ending(0)
    script = f"--module storm_hf.cli.script {tmp_path / 'align.py'}"
    expected = f"--num_processes 2 {script} --config {tmp_path / 'arguments.yaml'}\n"
    assert (tmp_path / "log.txt").read_text() == expected


def launch_below(trainer, log):
    """Run a trainer below a launcher, and write down how it ended."""
    ending = run_logged([sys.executable, "-c", LAUNCHER, trainer], log)
    log.with_name("ending.json").write_text(json.dumps([ending.exit_code, ending.is_interrupted]))


def start_run(trainer, log):
    """The same in a process that signals can be sent to; returns when it trains."""
    process = start(launch_below, trainer, log)
    wait_for("training", log)
    return process


def wait_for(word, log):
    until = time.monotonic() + 180  # the first process of its kind imports torch and transformers
    while not (log.exists() and word in log.read_text()):
        assert time.monotonic() < until, f"{word} was not printed"
        time.sleep(0.01)


def ending_of(process, log):
    assert finish(process) == 0
    return json.loads(log.with_name("ending.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lets_the_process_that_trains_save(number, tmp_path):
    process = start_run(TRAINER, log := tmp_path / "log.txt")
    os.kill(process.pid, number)
    assert ending_of(process, log) == [130, True]
    assert log.read_text() == "training\nsaved\n"


def test_second_ctrl_c_ends_all_at_once(tmp_path):
    process = start_run(DEAF_TRAINER, log := tmp_path / "log.txt")
    os.kill(process.pid, signal.SIGINT)
    wait_for("asked", log)
    os.kill(process.pid, signal.SIGINT)
    assert ending_of(process, log) == [137, True]


def test_listening_ends_with_the_stage(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run("pass", tmp_path / "log.txt")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class PopenDuringASignal(launch.Popen):
    """Has started its process, and has not returned, when SIGTERM comes."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.kill(os.getpid(), signal.SIGTERM)


def launch_during_a_signal(log):
    launch.Popen = PopenDuringASignal
    ending = run_logged([sys.executable, "-c", SLOW_LAUNCHER], log)
    log.with_name("ending.json").write_text(json.dumps([ending.exit_code, ending.is_interrupted]))


def test_signal_while_the_launcher_starts_leaves_no_stage_running(tmp_path):
    process = start(launch_during_a_signal, log := tmp_path / "log.txt")
    assert ending_of(process, log) == [128 + signal.SIGTERM, True]
    assert "training" not in log.read_text()
