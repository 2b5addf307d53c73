"""Fixtures of all tests: no network, one thread, a cache of their own, and the tiny models of `tests/tiny.py`."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


# Read by huggingface_hub and transformers when they are imported, and inherited by child processes.
_HOME = tempfile.mkdtemp(prefix="storm-hf-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["HF_HOME"] = _HOME
os.environ["HF_MODULES_CACHE"] = str(Path(_HOME, "modules"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest  # noqa: E402
import torch  # noqa: E402
from tests.reporting.chromium import chromium  # noqa: E402
from tests.tiny import KINDS, tiny_qwen_checkpoint, tiny_storm  # noqa: E402
from tests.warm import WarmPython  # noqa: E402

from storm_hf.model import StormForConditionalGeneration  # noqa: E402


torch.set_num_threads(1)
_MODULES_WORTH_A_FREEZE = 300
_num_frozen_modules = 0


@pytest.fixture(autouse=True, scope="module")
def imported_modules_are_not_collected() -> None:
    """Objects of imported modules leave the garbage collector, which walks through them again and again."""
    global _num_frozen_modules
    if len(sys.modules) - _num_frozen_modules > _MODULES_WORTH_A_FREEZE:
        gc.collect()
        gc.freeze()
        _num_frozen_modules = len(sys.modules)


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of backbone; a test that asks for it runs on all six."""
    return request.param


@pytest.fixture(scope="session")
def storm(kind: str) -> StormForConditionalGeneration:
    """A tiny STORM of this kind in evaluation mode, shared: a test that changes a model builds its own."""
    return tiny_storm(kind)


@pytest.fixture(scope="session")
def qwen_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a plain tiny Qwen2.5-VL checkpoint with its processor, shared: read only."""
    return tiny_qwen_checkpoint(tmp_path_factory.mktemp("qwen") / "plain")


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Processes for code that is run as users run it, with large packages imported already."""
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests of the marker `browser`: Playwright runs once in a process."""
    with chromium() as started:
        yield started
