"""Starts processes that train together, as a user would: with `accelerate launch` and the files of `trainers/accelerate`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.scale.job import Job, write_jobs
from tests.tiny import tiny_storm
from tests.training.tiny_training import NUM_LATENTS


ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "trainers" / "accelerate"
PATIENCE_SECONDS = 900  # DeepSpeed compiles its operators in the first launch on a machine
_LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--num_cpu_threads_per_process", "1"]


def prepare(folder: Path) -> Path:
    """Save the tiny model that every job starts from."""
    tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS).save_pretrained(folder / "model")
    return folder


def launch(config: str | None, jobs: Sequence[Job], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run jobs by two processes; with no configuration by one, without accelerate's launcher.

    Args:
        config (`str`, *optional*):
            Name of a file in `trainers/accelerate`, without its ending.
        jobs (`Sequence[Job]`):
            What to do, one after the other.
        folder (`Path`):
            What `prepare` returned.
    """
    path = folder / f"{config}-{jobs[0].name}.json"
    write_jobs(jobs, path)
    launcher = [sys.executable] if config is None else [*_LAUNCHER, "--config_file", str(CONFIGS / f"{config}.yaml")]
    return run([*launcher, "-m", "tests.scale.worker", str(path)])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command from the root of the repository, on one thread and without a network.

    Output goes through a file: a pipe would stay open as long as any process of the launch, also one that hangs.
    """
    settings = {"OMP_NUM_THREADS": "1", "CI": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    tools = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }  # ninja, which DeepSpeed compiles with
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.run(
            command, cwd=ROOT, env=os.environ | settings | tools, stdout=output, stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        output.seek(0)
        return subprocess.CompletedProcess(command, child.returncode, output.read())
