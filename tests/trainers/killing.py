"""Trainings that are killed at chosen moments: the command of a user, its processes, and the files that it leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import psutil
from safetensors.torch import load_file
from tests.tiny import tiny_qwen_checkpoint
from tests.training.tiny_videos import write_thoughts

from storm_hf.training.resume import newest_complete_checkpoint


TRAINERS = Path(__file__).parents[2] / "trainers"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
PATIENCE_SECONDS = 600
_LOOK_SECONDS = 0.002
_SETTINGS = {"OMP_NUM_THREADS": "1", "CI": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Training:
    """A run of `trainers/align.py` or `trainers/answer.py` on a tiny backbone.

    Args:
        stage (`str`):
            `align` or `answer`.
        num_processes (`int`, *optional*, defaults to `1`):
            Processes that train together, over gloo.
        lora (`bool`, *optional*, defaults to `False`):
            Whether an adapter is trained.
        num_steps (`int`, *optional*, defaults to `40`):
            Steps; a checkpoint is written after every second one.
    """

    stage: str
    num_processes: int = 1
    lora: bool = False
    num_steps: int = 40

    @property
    def title(self) -> str:
        """Name of the run in a table."""
        count = "one process" if self.num_processes == 1 else f"{self.num_processes} processes"
        return f"{self.stage}, {count}{', LoRA' if self.lora else ''}"

    def command(self, place: Path, output: Path, *more: str) -> list[str]:
        """Write the command as a user does.

        Args:
            place (`Path`):
                What `prepare` returned.
            output (`Path`):
                Output folder of the run.
            more (`str`):
                Further arguments.
        """
        config = "single_cpu" if self.num_processes == 1 else "ddp"
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_cpu_threads_per_process", "1"]
        launcher += ["--config_file", str(TRAINERS / "accelerate" / f"{config}.yaml")]
        script = [str(TRAINERS / f"{self.stage}.py")]
        script += ["--config", str(TRAINERS / "recipes" / f"worlds_tiny_{self.stage}.yaml")]
        arguments: dict[str, object] = {
            "model_name_or_path": place / "base",
            "dataset_name": place / "data",
            "output_dir": output,
            "max_steps": self.num_steps,
            "save_steps": 2,
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "num_latents": 3,
            "bottleneck_share": 0.5,  # drawn anew at each step
            "bf16": "false",
            "disable_tqdm": "true",
            "dataloader_pin_memory": "false",
        }
        if self.stage == "align":
            arguments |= {"whitening_rank": 4, "forcing": "scheduled"}
        if self.lora:
            arguments |= {"use_peft": "true", "lora_r": 4, "lora_dropout": 0.1}
        given = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        return [*launcher, *script, *given, *more]


def prepare(place: Path) -> Path:
    """Write the backbone and the data set that every run reads."""
    tiny_qwen_checkpoint(place / "base")
    write_thoughts(place / "data")
    return place


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command whose output is appended to a file; whatever is left of it at the end is killed."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | _SETTINGS)
        try:
            yield process
        finally:
            kill(process)


def run(command: list[str], log: Path) -> int:
    """Run a command to its end; return its exit code."""
    with started(command, log) as process:
        return process.wait(PATIENCE_SECONDS)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Processes of a launch, the launcher first."""
    try:
        launcher = psutil.Process(process.pid)
        return [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(process: subprocess.Popen[bytes], victim: int | None = None) -> None:
    """Send SIGKILL to all processes of a launch at once, or to one of those that train, and wait until none is left."""
    launcher, *others = family(process) or [None]
    workers = [each for each in others if is_child(each, process)]
    is_alone = victim is not None and victim < len(workers)
    for each in [workers[victim]] if is_alone else filter(None, [launcher, *others]):
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_SECONDS)  # before psutil asks for the exit codes of others
    psutil.wait_procs(others, timeout=60)


def is_child(process: psutil.Process, launcher: subprocess.Popen[bytes]) -> bool:
    """Check whether a process was started by the launcher itself."""
    try:
        return process.ppid() == launcher.pid
    except psutil.NoSuchProcess:
        return False


def wait_until(process: subprocess.Popen[bytes], has_come: Callable[[], bool]) -> bool:
    """Wait for a moment of a run; false if it ended before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if has_come():
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def newest_step(output: Path) -> int:
    """Step of the newest complete checkpoint, 0 without one."""
    newest = newest_complete_checkpoint(output)
    return 0 if newest is None else int(newest.name.rpartition("-")[2])


def half_written(output: Path) -> list[int]:
    """Steps of checkpoints that are newer than the newest complete one."""
    steps = (int(path.name.rpartition("-")[2]) for path in output.glob("checkpoint-*"))
    return sorted(step for step in steps if step > newest_step(output))


def weights_of(folder: Path) -> dict[str, str]:
    """Hash of every tensor, of its type and its shape too."""
    found = next(folder / name for name in WEIGHTS if (folder / name).exists())
    return {
        name: sha256(f"{tensor.dtype}{tensor.shape}".encode() + tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in load_file(found).items()
    }


def published_files(output: Path) -> set[str]:
    """Names of the files of the final model, without what a run keeps for itself."""
    names = (path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    return {name for name in names if not name.startswith(("checkpoint-", ".locks/", "runs/"))}
