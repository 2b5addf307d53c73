"""Temporary folders of pushes. Those that killed processes left behind are removed."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


_PREFIX = "storm-push"
_HOST = re.sub(r"\W+", "_", socket.gethostname()) or "host"  # a temporary folder may be shared by machines
_LEFT = re.compile(rf"{_PREFIX}-{_HOST}-(\d+)-\w+")


@contextmanager
def push_folder() -> Iterator[Path]:
    """Make a temporary folder that is removed at the end, or by the next push after a kill."""
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}-{_HOST}-{os.getpid()}-") as folder:
        yield Path(folder)


def remove_leftovers() -> list[Path]:
    """Remove the temporary folders of pushes on this machine whose process is gone.

    Returns:
        `list[Path]`: Those that were removed.
    """
    removed = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-*"):
        match = _LEFT.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink() and not psutil.pid_exists(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed
