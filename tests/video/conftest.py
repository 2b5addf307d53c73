"""Fixtures of the video tests."""

import sys

import pytest
from tests.video import clips

from storm_hf.video.library_process import stop_idle_processes


@pytest.fixture
def counting(tmp_path):
    """Forty frames, ten a second, a keyframe every seven."""
    return clips.encode(tmp_path / "counting.mp4", clips.numbered_frames(40), keyframe_every=7)


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """A folder whose modules stand before the installed ones."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("decord", "torchcodec")]:
        monkeypatch.delitem(sys.modules, name)  # the installed ones, which another test has loaded
    stop_idle_processes()
    yield folder
    stop_idle_processes()
    for name, module in list(sys.modules.items()):  # what a test has loaded from it is not the library
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]
