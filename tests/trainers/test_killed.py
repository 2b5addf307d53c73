"""A training that is killed goes on with the same command; `benchmarks/train_resume.py` in small."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_resume.py"


@pytest.mark.slow
@pytest.mark.parametrize(("run", "num_kills"), [("align, one process, LoRA", 2), ("answer, 2 processes, LoRA", 1)])
def test_killed_training_ends_with_the_weights_of_an_uninterrupted_one(run, num_kills):
    command = [sys.executable, str(SCRIPT), "--kills", str(num_kills), "--only", run]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{num_kills} kills; 1 of 1 runs ended identical" in finished.stdout
