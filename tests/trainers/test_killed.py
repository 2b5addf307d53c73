"""A training that is killed goes on with the same command; `benchmarks/train_resume.py` in small."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_resume.py"


@pytest.mark.slow
@pytest.mark.parametrize("run", ["align, one process, LoRA", "answer, 2 processes, LoRA"])
def test_killed_training_ends_with_the_weights_of_an_uninterrupted_one(run):
    command = [sys.executable, str(SCRIPT), "--kills", "2", "--only", run]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "2 kills; 1 of 1 runs ended identical" in finished.stdout
