"""A command in a process of its own, which stops by itself at a chosen moment, so that a fault happens there and nowhere else.

A moment is counted in what the command does to the files below a folder: each opening, renaming, removing and making of a
folder is one event. The process is forked, so that it has loaded everything.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.faults.linux import descendants


_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"})
_LOOK_SECONDS = 0.002
_PIPE_BYTES = 2**16


class TookTooLong(Exception):  # noqa: N818
    """A command did not end in its time."""


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code, minus the signal that killed it, and what it printed last."""

    code: int
    last_line: str
    num_events: int

    @property
    def manner(self) -> str:
        """A word for people."""
        if self.code < 0:
            return signal.Signals(-self.code).name
        return f"code {self.code}{' (traceback)' if 'Traceback' in self.last_line else ''}"


class Child:
    """A running command.

    Args:
        work (`Callable[[], None]`):
            What it does.
        folder (`Path`):
            Where its files are counted.
        stop_at (`int`, *optional*):
            Number of the event before which it stops.
        printed_to (`Path`, *optional*):
            A file for what it prints, where it runs on while this process does not listen. By default a pipe, since files may
            have no place.
    """

    def __init__(
        self, work: Callable[[], None], folder: Path, stop_at: int | None = None, printed_to: Path | None = None
    ) -> None:
        self._counts, counts = os.pipe()
        self._printed, printing = os.pipe() if printed_to is None else _both_ends(printed_to)
        self._text = b""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become_command(work, folder, printing, counts, stop_at)
            finally:
                os._exit(1)
        for descriptor in (counts, printing):
            os.close(descriptor)
        os.set_blocking(self._printed, False)
        self._status: int | None = None

    def wait_for_stop(self, seconds: float) -> bool:
        """Wait until it has stopped; false if it ended before."""
        self._look(os.WUNTRACED, seconds)
        return self._status is None

    def go_on(self) -> None:
        """Let a stopped command continue."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the command, SIGKILL also to all that came of it."""
        processes = descendants(self.pid) if number == signal.SIGKILL else [psutil.Process(self.pid)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        self.go_on()

    def is_running(self, seconds: float) -> bool:
        """Wait so long; tell if it still runs then."""
        with suppress(TookTooLong):
            self._look(0, seconds)
        return self._status is None

    def wait(self, seconds: float) -> Ending:
        """Wait for its end; what takes longer is killed, and an error."""
        try:
            self._look(0, seconds)
        except TookTooLong:
            self.kill()
            self._look(0, 60)
            raise
        with os.fdopen(self._counts, "rb") as counts:
            num_events = int(counts.read() or b"0")
        os.close(self._printed)
        code = os.waitstatus_to_exitcode(self._status or 0)
        return Ending(code, last_line(self._text), num_events)

    def _look(self, options: int, seconds: float) -> int | None:
        """Wait until it ends, or stops where that is asked for."""
        deadline = time.monotonic() + seconds
        while self._status is None:
            self._listen()
            pid, status = os.waitpid(self.pid, options | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                return None
            if pid:
                self._status = status
            elif time.monotonic() > deadline:
                raise TookTooLong(f"more than {seconds:.0f} s; it printed last: {last_line(self._text)}")
            else:
                time.sleep(_LOOK_SECONDS)
        self._listen()
        return self._status

    def _listen(self) -> None:
        """Take what it has printed, so that it never waits for a reader."""
        with suppress(BlockingIOError):
            while text := os.read(self._printed, _PIPE_BYTES):
                self._text += text


def _both_ends(path: Path) -> tuple[int, int]:
    """Open a new file for reading and for writing."""
    writing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    return os.open(path, os.O_RDONLY), writing


def last_line(text: bytes) -> str:
    """The last line that a command printed, after the word Traceback if there is one near the end."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    prefix = "Traceback: " if any(line.startswith("Traceback") for line in lines[-60:]) else ""
    return prefix + (lines[-1].rpartition("\N{BOX DRAWINGS LIGHT UP AND LEFT}")[2].strip() if lines else "")


def _become_command(work: Callable[[], None], folder: Path, printing: int, counts: int, stop_at: int | None) -> None:
    """Do the work, and end the process with the exit code of a command."""
    os.setsid()
    os.dup2(printing, 1)
    os.dup2(printing, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))  # of the pipe now
    signal.signal(signal.SIGINT, signal.default_int_handler)
    count, code = _counted(folder, stop_at), 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(counts, str(count()).encode())
    os._exit(code)


def _counted(folder: Path, stop_at: int | None) -> Callable[[], int]:
    """Count events from here on, and stop at one of them."""
    count, process, place = [0], os.getpid(), str(folder)

    def is_counted(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike) or os.getpid() != process:
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(place)

    def look(event: str, args: tuple[object, ...]) -> None:
        if event in _EVENTS and is_counted(args[0]):
            count[0] += 1
            if count[0] == stop_at:
                os.kill(process, signal.SIGSTOP)

    sys.addaudithook(look)
    return lambda: count[0]
