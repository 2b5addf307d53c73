"""Locks between processes, which the system releases when their owner ends, however it ends."""

import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(path: Path, name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a name. Processes on several machines share it where their file system has POSIX locks.

    One byte of one file is locked for each name, so that a folder of many shards needs no file for each. A process takes
    one lock of a file at a time: the system releases all of them when the first one is given back.

    Args:
        path (`Path`):
            The file of locks. It stays empty, and its folder is made.
        name (`str`):
            What is locked, such as a shard.
        wait (`bool`, *optional*, defaults to `True`):
            Whether to wait for a process that holds it.

    Yields:
        `bool`: Whether the lock is held; always true after waiting. Windows has no such locks: there it is always true, and
        one process works at a time.
    """
    if sys.platform == "win32":
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(file, how, 1, zlib.crc32(name.encode()))
        except (BlockingIOError, PermissionError):  # held by another; systems differ in how they say it
            yield False
            return
        yield True
