"""Benchmarks import one another as scripts of one folder do."""

import sys
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[2] / "benchmarks"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))


@pytest.fixture(scope="session")
def tiny():
    from answer_ways import build

    return build("tiny")
