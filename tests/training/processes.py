"""New processes that start quickly: imports are shared with them, memory is not."""

import faulthandler
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback


PATIENCE_SECONDS = 240  # the first process imports everything: 15 seconds on an idle machine, minutes on a crowded one
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


def finish(process: BaseProcess) -> int | None:
    """Wait for a process and return its exit code. One that hangs is killed, and has written its stack to standard error."""
    return finish_together([process])[0]


def finish_together(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Wait for processes that work together and return their exit codes.

    Where one fails, the others would wait for it for ever, so they are killed, as a launcher does.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS + 5
    while time.monotonic() < deadline and not any(process.exitcode for process in processes):
        running = [process.sentinel for process in processes if process.is_alive()]
        if not running:
            break
        connection.wait(running, timeout=1)
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    return [process.exitcode for process in processes]


def meet(rank: int, num_ranks: int, place: Path) -> None:
    """Make this process one of several that train together.

    They meet in a file, since a port that was free a moment ago may be taken when the first of them is ready. A process that
    waits in vain for another raises.
    """
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    store = distributed.FileStore(str(place), num_ranks)
    patience = timedelta(seconds=PATIENCE_SECONDS)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks, timeout=patience)


class KillAfterStep(TrainerCallback):
    """Ends the process without a word after a step, before anything of it is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    """End the group, once the caller has deleted what holds it: see `StormTrainer.end`."""
    gc.collect()
    distributed.destroy_process_group()


def _on_one_thread(function: Callable[..., None], *args: Any) -> None:
    faulthandler.dump_traceback_later(PATIENCE_SECONDS)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, {signal.SIGINT}
    )  # a demo of the same session has blocked it in the server
    torch.set_num_threads(1)
    function(*args)
