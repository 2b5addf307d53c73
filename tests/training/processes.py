"""New processes that start quickly: imports are shared with them, memory is not."""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import torch


PATIENCE_SECONDS = 60
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["storm_hf.align.trainer", "storm_hf.answer.trainer"])


def start(function: Callable[..., None], *args: Any) -> BaseProcess:
    """Run a function of a module in a process of its own, on one thread."""
    process = _CONTEXT.Process(target=_on_one_thread, args=(function, *args))
    process.start()
    return process


def run(function: Callable[..., None], *args: Any) -> int:
    """The same, to its end; returns the exit code, which is minus the signal for a process that was killed."""
    return finish(start(function, *args))


def finish(process: BaseProcess) -> int:
    """Wait for a process and return its exit code; one that hangs is killed, which a test then sees."""
    process.join(timeout=PATIENCE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def _on_one_thread(function: Callable[..., None], *args: Any) -> None:
    torch.set_num_threads(1)
    function(*args)
