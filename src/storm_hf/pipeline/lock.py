"""Locks between processes, which the system releases when their owner ends, however it ends."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path, name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a name. Processes on several machines share it where their file system has POSIX locks.

    One byte of one file is locked for each name, so that a folder of many shards needs no file for each. A process takes
    one lock of a file at a time: the system releases all of them when the first one is given back.

    Args:
        path (`Path`):
            The file of locks. It stays empty, and its folder is made.
        name (`str`):
            Name of the locked thing, such as a shard.
        wait (`bool`, *optional*, defaults to `True`):
            Whether to wait for a process that holds it.

    Yields:
        `bool`: Whether the lock is held; always true after waiting. Systems without POSIX locks have a file beside `path` for
        each name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        with _locked_file(path.with_name(f"{path.name}-{zlib.crc32(name.encode()):08x}"), wait) as is_held:
            yield is_held
        return
    with path.open("a") as file:
        how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(file, how, 1, zlib.crc32(name.encode()))
        except (BlockingIOError, PermissionError):  # held by another; systems raise different errors
            yield False
            return
        yield True


@contextmanager
def _locked_file(path: Path, wait: bool) -> Iterator[bool]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
