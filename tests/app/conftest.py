from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.app.browsing import app_page, open_at
from tests.evaluation.world_checkpoint import save_world_checkpoint
from tests.video import clips

from storm_hf.app.examples import Examples
from storm_hf.app.handlers import PageHandlers
from storm_hf.app.session import Session
from storm_hf.checkpoints.loading import load_checkpoint


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny STORM that was trained on the shuffle world."""
    return save_world_checkpoint(tmp_path_factory.mktemp("app") / "storm")


@pytest.fixture(scope="package")
def session(checkpoint: Path) -> Session:
    return Session.load(str(checkpoint), max_seconds=20, load=load_checkpoint)


@pytest.fixture(scope="package")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return Examples.render(["shuffle"], tmp_path_factory.mktemp("examples"), count=2)


@pytest.fixture(scope="package")
def handlers(session: Session, examples: Examples) -> PageHandlers:
    return PageHandlers(session, examples)


@pytest.fixture(scope="package")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that no world drew."""
    return clips.encode(tmp_path_factory.mktemp("clips") / "mine.mp4", clips.numbered_frames(8), fps=2)


@pytest.fixture(scope="package")
def address(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the page of `storm app`."""
    with app_page(str(checkpoint), tmp_path_factory.mktemp("told") / "address") as address:
        yield address


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page in a context of its own."""
    yield partial(open_at, browser, address)
    for context in browser.contexts:
        context.close()
