"""The processes that wait for their next clip, so that a library is loaded once and not for every clip.

Threads get a process each. A child made by fork starts its own: two who write to one pipe would read each other's
answers.
"""

import atexit
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from storm_hf.optional import require
from storm_hf.video.library_process import LibraryProcess
from storm_hf.video.limits import ReadingBounds


_idle: defaultdict[str, list[LibraryProcess]] = defaultdict(list)
_of_parent: list[LibraryProcess] = []


@contextmanager
def borrowed_process(library: str, bounds: ReadingBounds) -> Iterator[LibraryProcess]:
    """Lend a process that no other thread uses, started if none is idle; one in which something went wrong is ended.

    Args:
        library (`str`):
            `decord` or `torchcodec`.
        bounds ([`ReadingBounds`]):
            The reading it is for, in whose time the start of a process does not count.

    Yields:
        [`LibraryProcess`]: The process, with no open file.

    Raises:
        MissingExtraError: If the library is not installed.
        BrokenExtraError: If it is installed but does not load.
    """
    if find_spec(library) is None:
        require(library)
    with bounds.off_the_clock():
        process = _idle_process(library) or LibraryProcess.start(library)
    try:
        yield process
    finally:
        if process.is_usable:
            process.close()
            _idle[library].append(process)
        else:
            process.stop()


def stop_idle_processes() -> None:
    """End all processes that wait for a clip. The next clip starts a new one."""
    for library in list(_idle):
        while process := _idle_process(library):
            process.stop()


def _idle_process(library: str) -> LibraryProcess | None:
    while _idle[library]:
        try:
            process = _idle[library].pop()
        except IndexError:  # another thread was quicker
            break
        if process.is_usable:
            return process
        process.stop()
    return None


def _leave_to_parent() -> None:
    """Forget, after a fork, the processes of the parent."""
    for processes in _idle.values():
        for process in processes:
            process.close_pipes()
        _of_parent.extend(processes)  # kept, since `Popen` complains about children that it loses sight of
    _idle.clear()


atexit.register(stop_idle_processes)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
