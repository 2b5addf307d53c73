"""Processes of a variant, started together and ended together: where one fails, the others would wait for it."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate.utils.other import get_free_port

from storm_hf.evaluation.harness.task_process import FAILED


# Variables of a job that the command runs in, by which torch and accelerate would take a process for one of that job's.
_OF_JOB = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM"),
    *("ACCELERATE_USE_PARALLELISM_CONFIG", "ACCELERATE_USE_SAGEMAKER"),
)
_OF_JOBS_AGENT = "TORCHELASTIC_"


def log_file(folder: Path, rank: int = 0) -> Path:
    """Return the path of what a process printed."""
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
            Number of processes. None of them belongs to a job whose ranks the environment names.
        folder (`Path`):
            Folder of the logs, see `log_file`.
        environment (`Mapping[str, str]`):
            Environment of all processes. Several get their share of the cores as `OMP_NUM_THREADS`, unless it is set.

    Yields:
        `list[subprocess.Popen]`: The processes by rank. Those that still run at the end of the block are terminated.
    """
    alone = _without_job(environment)
    port = get_free_port()
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as logs:
        try:
            for rank in range(num_processes):
                log = logs.enter_context(log_file(folder, rank).open("ab"))
                own = _with_rank(alone, rank, num_processes, port) if num_processes > 1 else alone
                processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own))
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _without_job(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in _OF_JOB and not name.startswith(_OF_JOBS_AGENT)
    }


def _with_rank(environment: Mapping[str, str], rank: int, num_processes: int, port: int) -> dict[str, str]:
    shared = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes, "MASTER_PORT": port}
    variables = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
    threads = {"OMP_NUM_THREADS": str(max(1, _num_cores() // num_processes))}
    return {**threads, **environment, "MASTER_ADDR": "127.0.0.1", **variables}


def _num_cores() -> int:
    """Return the number of cores that this process may use, which only some systems tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def are_running(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Check that some run, and none has failed."""
    codes = [process.poll() for process in processes]
    return None in codes and not any(codes)


def failed_rank(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Return the rank of the process that failed, or None. One that gave a reason or was killed goes before those that missed it."""
    codes = {rank: code for rank, process in enumerate(processes) if (code := process.poll())}
    return min(codes, key=lambda rank: (codes[rank] != FAILED, codes[rank] > 0, rank), default=None)
