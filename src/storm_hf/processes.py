"""Signals and lifetimes of the processes that a run starts."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType


@contextmanager
def receiving_stops(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM within the block.

    Args:
        handler (`Callable[[int, FrameType | None], None]`):
            Called with the number of each signal, in place of the handlers before, which are back afterwards.
    """
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def end_with_parent() -> None:
    """End this process of `multiprocessing` as soon as the one that started it has gone, for whatever reason."""
    parent = parent_process()
    assert parent is not None  # it was started by one

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
