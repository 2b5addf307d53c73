"""Task runner of the demo: processes side by side, with progress bars and an orderly Ctrl-C."""

import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, set_start_method
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from storm_hf.errors import StageError
from storm_hf.processes import end_with_parent, receiving_stops


_REPORT_SECONDS = 0.5
PRELOADED = "storm_hf.demo.training"  # the first stage's server serves all stages
Report = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """One piece of work, done in a process of its own.

    Args:
        name (`str`):
            Of its log file.
        title (`str`):
            Title of the progress bar.
        total (`int`):
            Steps of the progress bar.
        work (`Callable`):
            A module-level function. It gets `args` and then a function to report finished steps to.
        args (`tuple`):
            Of the work.
        num_threads (`int`, *optional*, defaults to `1`):
            Threads that PyTorch computes with.
    """

    name: str
    title: str
    total: int
    work: Callable[..., None]
    args: tuple[Any, ...]
    num_threads: int = 1


@dataclass
class Usage:
    """Cost of finished work: wall and CPU seconds, and peak memory in MiB."""

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
    is_listening: bool = False  # its process has started, and takes an interrupt as one
    num_interrupts: int = 0  # that were passed on to it


@dataclass
class _Board:
    """Running tasks, and their last reports."""

    progress: Progress
    messages: "Queue[tuple[str, str, Any]]"
    running: dict[str, _Running] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    peak_rss_mib: float = 0.0
    failure: tuple[str, str] | None = None
    num_interrupts: int = 0

    @property
    def is_stopping(self) -> bool:
        """True once no new task is to be started."""
        return self.failure is not None or self.num_interrupts > 0

    def count_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.num_interrupts += 1
        self.progress.console.print("Finishing the running step and saving ...")


def run_tasks(tasks: Sequence[Task], logs: Path, workers: int, console: Console | None = None) -> Usage:
    """Do `tasks` in processes, at most `workers` at once.

    Ctrl-C reaches this process alone; it passes it on once to each worker, which finishes its step and saves, and SIGTERM is
    passed on as Ctrl-C. When a task fails, the others are stopped in the same way. No worker outlives this process.

    Args:
        tasks (`Sequence[Task]`):
            Tasks, in the order of their start.
        logs (`Path`):
            Folder for what the tasks print.
        workers (`int`):
            Processes at once.
        console ([`~rich.console.Console`], *optional*):
            Console of the progress bars.

    Raises:
        StageError: If a task fails; the message has the end of its log.
        KeyboardInterrupt: If Ctrl-C was pressed or SIGTERM came, after every worker has stopped.
    """
    logs.mkdir(parents=True, exist_ok=True)
    context = get_context("forkserver")  # imports once, and every worker starts from there at once
    context.set_forkserver_preload([*sorted({task.work.__module__ for task in tasks}), PRELOADED])
    started, own_cpu_seconds = time.perf_counter(), _own_cpu_seconds()
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("to go"))
    with Progress(*columns, *times, console=console, refresh_per_second=2) as progress:
        board = _Board(progress, context.Queue())
        with receiving_stops(board.count_interrupt):
            _start_server()
            waiting = list(tasks)
            while board.running or (waiting and not board.is_stopping):
                while waiting and len(board.running) < workers and not board.is_stopping:
                    _start(waiting.pop(0), board, logs, context)
                _listen(board)
                _pass_on_interrupts(board)
    if board.failure is not None:
        raise StageError(f"{board.failure[0]} failed; its log is in {logs}. It ended with:\n{board.failure[1]}")
    if board.num_interrupts:
        raise KeyboardInterrupt
    cpu_seconds = board.cpu_seconds + _own_cpu_seconds() - own_cpu_seconds
    return Usage(time.perf_counter() - started, cpu_seconds, board.peak_rss_mib)


def _pass_on_interrupts(board: _Board) -> None:
    """Tell every worker of the interrupts that it has not heard of. A failure counts as one."""
    wanted = max(board.num_interrupts, int(board.failure is not None))
    for running in board.running.values():
        while running.is_listening and running.num_interrupts < wanted:
            assert running.process.pid is not None  # it has said that it runs
            running.num_interrupts += 1
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(running.process.pid, signal.SIGINT)


def _start_server() -> None:
    """Start the process that workers come from, deaf to Ctrl-C: it would die of it while it imports."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start(task: Task, board: _Board, logs: Path, context: ForkServerContext) -> None:
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
    if kind == "started":
        board.running[name].is_listening = True
    elif kind == "progress":
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
    elif not board.is_stopping:
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


def _listen_to_parent_alone() -> None:
    """Make Ctrl-C in the terminal reach the parent, which passes it on, and not this process too."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # forgets one that came before
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _do(task: Task, messages: "Queue[tuple[str, str, Any]]", log: Path) -> None:
    """Run in the worker: do the work, print into the log, report."""
    end_with_parent()
    torch.set_num_threads(task.num_threads)
    set_start_method("fork", force=True)  # a data loader of the task starts at once
    _listen_to_parent_alone()
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
        messages.put((task.name, "started", None))
        with (
            redirect_stdout(stream),
            redirect_stderr(stream),
        ):  # line by line, and nothing is left in a buffer at the end
            task.work(*task.args, report)
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        status = 1
        messages.put((task.name, "failed", "".join(traceback.format_exc().splitlines(keepends=True)[-12:])))
        traceback.print_exc(file=stream)
    used = os.times()
    messages.put((task.name, "cpu", used.user + used.system + used.children_user + used.children_system))
    messages.close()
    messages.join_thread()
    stream.flush()
    os._exit(status)
