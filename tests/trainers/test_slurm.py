"""The SLURM script, run with stand-ins for SLURM's and accelerate's commands."""

import os
import subprocess
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "trainers" / "slurm" / "two_nodes.sbatch"
STAND_INS = {
    "scontrol": "printf 'first\\nsecond\\n'",
    "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',  # drops its own option
    "accelerate": 'printf "%s\\n" "$*"',
}
SLURM = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "8"}


@pytest.fixture
def submit(tmp_path):
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def submit(*arguments, **variables):
        environment = os.environ | SLURM | variables | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", SCRIPT, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )

    return submit


def test_each_node_launches_the_script_with_its_own_rank(submit):
    launches = submit("trainers/align.py", "--config", "my recipe.yaml").stdout.splitlines()
    assert len(launches) == 2
    for rank, launch in enumerate(launches):
        assert f"--num_machines 2 --num_processes 16 --machine_rank {rank} --main_process_ip first" in launch
        assert launch.startswith("launch --config_file trainers/accelerate/zero3.yaml ")
        assert launch.endswith("--main_process_port 20007 trainers/align.py --config my recipe.yaml")


def test_another_way_to_share_the_model_can_be_named(submit):
    launched = submit("trainers/align.py", ACCELERATE_CONFIG="trainers/accelerate/fsdp2.yaml").stdout
    assert "--config_file trainers/accelerate/fsdp2.yaml" in launched


def test_submission_without_a_script_says_what_is_missing(submit):
    result = submit()
    assert result.returncode == 2
    assert "Expected a script" in result.stderr
