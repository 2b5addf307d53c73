"""Processes of a variant, started together and ended together: where one fails, the others would wait for it."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate.utils.other import get_free_port

from storm_hf.evaluation.harness.task_process import FAILED


def log_file(folder: Path, rank: int = 0) -> Path:
    """Path of what a process printed."""
    return folder / ("lmms_eval.log" if rank == 0 else f"lmms_eval-{rank}.log")


@contextmanager
def started_together(
    command: Sequence[str], num_processes: int, folder: Path, environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run a command in processes that find each other by the variables of torch's launcher.

    accelerate's own launcher starts each process in a session that outlives a killed launcher, and turns every exit code into 1.

    Args:
        command (`Sequence[str]`):
            The command of each process.
        num_processes (`int`):
            Number of processes. A single one does not get the ranks that the environment names.
        folder (`Path`):
            Folder of the logs, see `log_file`.
        environment (`Mapping[str, str]`):
            Environment of all processes.

    Yields:
        `list[subprocess.Popen]`: The processes by rank. Those that still run at the end of the block are terminated.
    """
    alone = {name: value for name, value in environment.items() if name not in ("RANK", "WORLD_SIZE")}
    port = get_free_port()
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as logs:
        try:
            for rank in range(num_processes):
                log = logs.enter_context(log_file(folder, rank).open("ab"))
                own = {**alone, **(_variables(rank, num_processes, port) if num_processes > 1 else {})}
                processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own))
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _variables(rank: int, num_processes: int, port: int) -> dict[str, str]:
    shared = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes, "MASTER_PORT": port}
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    chosen = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    variables = {**shared, **chosen, "RANK": rank, "LOCAL_RANK": rank}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in variables.items()}}


def are_running(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Check that some run, and none has failed."""
    codes = [process.poll() for process in processes]
    return None in codes and not any(codes)


def failed_rank(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Rank of the process that failed, or None. One that gave a reason or was killed goes before those that missed it."""
    codes = {rank: code for rank, process in enumerate(processes) if (code := process.poll())}
    return min(codes, key=lambda rank: (codes[rank] != FAILED, codes[rank] > 0, rank), default=None)
