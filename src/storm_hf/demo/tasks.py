"""Runs the demo's pieces of work as processes of their own, side by side, with progress bars and an orderly Ctrl-C."""

import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from storm_hf.errors import DemoError


_REPORT_SECONDS = 0.5
_PRELOADED = "storm_hf.demo.arms"  # the first stage's server serves all stages
Report = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """One piece of work, done in a process of its own.

    Args:
        name (`str`):
            Of its log file.
        title (`str`):
            What the progress bar says.
        total (`int`):
            Steps of the progress bar.
        work (`Callable`):
            A module-level function. It gets `args` and then a function to report finished steps to.
        args (`tuple`):
            Of the work.
    """

    name: str
    title: str
    total: int
    work: Callable[..., None]
    args: tuple[Any, ...]


@dataclass
class Usage:
    """What finished work cost: wall and CPU seconds, and the most memory that was held at once, in MiB."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_mib: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_rss_mib, other.peak_rss_mib),
        )


@dataclass
class _Running:
    task: Task
    process: BaseProcess
    bar: Any


@dataclass
class _Board:
    """What is running, and what it said."""

    progress: Progress
    messages: "Queue[tuple[str, str, Any]]"
    running: dict[str, _Running] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    peak_rss_mib: float = 0.0
    failure: tuple[str, str] | None = None
    is_interrupted: bool = False


def run_tasks(tasks: Sequence[Task], logs: Path, workers: int, console: Console | None = None) -> Usage:
    """Do `tasks` in processes, at most `workers` at once.

    Ctrl-C reaches this process alone; it passes it on once to each worker, which finishes its step and saves.

    Args:
        tasks (`Sequence[Task]`):
            What is to do, in this order.
        logs (`Path`):
            Folder for what the tasks print.
        workers (`int`):
            Processes at once.
        console ([`~rich.console.Console`], *optional*):
            Where the progress bars appear.

    Raises:
        DemoError: If a task fails; the message has the end of its log.
        KeyboardInterrupt: If Ctrl-C was pressed, after every worker has stopped.
    """
    logs.mkdir(parents=True, exist_ok=True)
    context = get_context("forkserver")  # imports once, and every worker starts from there at once
    context.set_forkserver_preload([*sorted({task.work.__module__ for task in tasks}), _PRELOADED])
    started, own_cpu_seconds = time.perf_counter(), _own_cpu_seconds()
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("to go"))
    with Progress(*columns, *times, console=console, refresh_per_second=2) as progress:
        board = _Board(progress, context.Queue())
        with _passing_on_interrupts(board):
            waiting = list(tasks)
            while board.running or (waiting and not board.failure and not board.is_interrupted):
                while waiting and len(board.running) < workers and not board.failure and not board.is_interrupted:
                    _start(waiting.pop(0), board, logs, context)
                _listen(board)
    if board.failure is not None:
        raise DemoError(f"{board.failure[0]} failed; its log is in {logs}. It ended with:\n{board.failure[1]}")
    if board.is_interrupted:
        raise KeyboardInterrupt
    cpu_seconds = board.cpu_seconds + _own_cpu_seconds() - own_cpu_seconds
    return Usage(time.perf_counter() - started, cpu_seconds, board.peak_rss_mib)


@contextmanager
def _passing_on_interrupts(board: _Board) -> Iterator[None]:
    def note(*_: Any) -> None:
        board.is_interrupted = True
        board.progress.console.print("Finishing the running step and saving ...")
        for running in board.running.values():
            if running.process.pid is not None and running.process.is_alive():
                os.kill(running.process.pid, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _start(task: Task, board: _Board, logs: Path, context: Any) -> None:
    process = context.Process(target=_do, args=(task, board.messages, logs / f"{task.name}.log"), daemon=False)
    process.start()
    board.running[task.name] = _Running(task, process, board.progress.add_task(task.title, total=task.total))


def _listen(board: _Board) -> None:
    """Take one message, and see who has ended."""
    board.peak_rss_mib = max(board.peak_rss_mib, _memory_mib())
    try:
        name, kind, value = board.messages.get(timeout=_REPORT_SECONDS)
    except queue.Empty:
        name, kind, value = "", "", None
    if kind == "progress":
        board.progress.update(board.running[name].bar, completed=value)
    elif kind == "failed":
        board.failure = board.failure or (board.running[name].task.title, value)
    elif kind == "cpu":
        board.cpu_seconds += value
    for name, running in list(board.running.items()):
        if not running.process.is_alive() and board.messages.empty():
            _retire(name, running, board)


def _retire(name: str, running: _Running, board: _Board) -> None:
    running.process.join()
    del board.running[name]
    if running.process.exitcode == 0:
        board.progress.update(running.bar, completed=running.task.total)
    elif board.failure is None and not board.is_interrupted:
        board.failure = (running.task.title, f"Its process ended with exit code {running.process.exitcode}.")


def _own_cpu_seconds() -> float:
    """CPU seconds of this process and of the server that starts workers; workers report their own."""
    processes = [psutil.Process(), *psutil.Process().children()]
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def _memory_mib() -> float:
    """Memory of this process and its children, in MiB. Pages that they share are counted once for each."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended while we looked
            continue
    return total / 2**20


def _do(task: Task, messages: "Queue[tuple[str, str, Any]]", log: Path) -> None:
    """Run in the worker: do the work on one thread, print into the log, report."""
    torch.set_num_threads(1)
    os.setpgrp()  # Ctrl-C in the terminal reaches the parent alone, which passes it on
    stream = log.open("a", buffering=1)
    os.dup2(stream.fileno(), sys.stdout.fileno())
    os.dup2(stream.fileno(), sys.stderr.fileno())
    last = 0.0

    def report(completed: int) -> None:
        nonlocal last
        if time.perf_counter() - last > _REPORT_SECONDS:
            last = time.perf_counter()
            messages.put((task.name, "progress", completed))

    status = 0
    try:
        task.work(*task.args, report)
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        status = 1
        messages.put((task.name, "failed", "".join(traceback.format_exc().splitlines(keepends=True)[-12:])))
        traceback.print_exc()
    used = os.times()
    messages.put((task.name, "cpu", used.user + used.system + used.children_user + used.children_system))
    messages.close()
    messages.join_thread()
    stream.flush()
    os._exit(status)
