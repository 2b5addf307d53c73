"""A minute of `benchmarks/serve_soak.py` with fewer clients."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_soak.py"


@pytest.mark.slow
def test_server_under_good_malformed_and_cancelled_requests_neither_fails_nor_grows():
    command = [sys.executable, str(SCRIPT), "--clients", "12", "--seconds", "60", "--max_in_flight", "8"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "no fault" in finished.stdout
