"""Faults that Linux makes: file systems that fill up, lock or go away, and processes without further files.

Mounts are made in a namespace of the process, so that no other process sees them and nothing is left of them. Users who may
not make one get `NotPossibleHere`.
"""

import ctypes
import os
import resource
from pathlib import Path

import psutil


_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_BALLAST = ".ballast"


class NotPossibleHere(Exception):  # noqa: N818
    """This machine does not let its user make the fault."""


def enter_namespace() -> None:
    """Give this process mounts of its own."""
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEW_MOUNTS | (_NEW_USER if user else 0)):
        raise NotPossibleHere(f"No namespace of mounts: {os.strerror(ctypes.get_errno())}")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", Path("/"), None, _RECURSIVE | _PRIVATE)


def mount_small_disk(folder: Path, size: int) -> None:
    """Put a disk of so many bytes over an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", folder, "tmpfs", 0, f"size={size}")


def fill_disk(folder: Path, free: int) -> None:
    """Leave only so many bytes free on the disk of a folder."""
    state = os.statvfs(folder)
    with (folder / _BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - free, 1))


def empty_disk(folder: Path) -> None:
    """Free what `fill_disk` took."""
    (folder / _BALLAST).unlink(missing_ok=True)


def mount_on_itself(folder: Path) -> None:
    """Make a folder a mount, which can be locked or taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount(str(folder), folder, None, _BIND)


def make_read_only(folder: Path, is_read_only: bool = True) -> bool:
    """Lock a mount against writing, or unlock it; false while a file of it is being written."""
    try:
        _mount("none", folder, None, _REMOUNT | _BIND | (_READ_ONLY if is_read_only else 0))
    except NotPossibleHere:
        return False
    return True


def take_away(folder: Path) -> None:
    """Replace what a folder holds by nothing, as a server does that is away."""
    _mount("tmpfs", folder, "tmpfs", _READ_ONLY, "size=4k")


def bring_back(folder: Path) -> None:
    """Undo `take_away`."""
    if _LIBC.umount2(os.fsencode(folder), _DETACH):
        raise NotPossibleHere(f"No unmounting of {folder}: {os.strerror(ctypes.get_errno())}")


def limit_files(process: int, spare: int) -> None:
    """Let a process open no more than so many further files."""
    taken = {int(name) for name in os.listdir(f"/proc/{process}/fd")}
    first_free = next(number for number in range(len(taken) + 1) if number not in taken)
    _, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (min(first_free + spare, hard), hard))


def limit_file_size(process: int, size: int) -> None:
    """Let a process write no file beyond so many bytes, as a quota does."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def descendants(process: int) -> list[psutil.Process]:
    """Every process that came of one, itself first."""
    try:
        first = psutil.Process(process)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    words = (source.encode(), os.fsencode(target), kind.encode() if kind else None)
    if _LIBC.mount(*words, ctypes.c_ulong(flags), options.encode() or None):
        raise NotPossibleHere(f"No mount on {target}: {os.strerror(ctypes.get_errno())}")
