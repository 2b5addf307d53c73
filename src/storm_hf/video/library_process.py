"""A decoder in a process of its own, which can be ended when it hangs or crashes.

decord can loop in native code holding the interpreter's lock (dmlc/decord issue 373): no thread and no signal handler
of Python runs then, so it must not be in the process that waits. A process serves one clip after another, so that the
library is loaded once; it works as well in a data loader's worker, which may not have children of `multiprocessing`.
Pixels come through a pipe straight into the array that is returned.

Threads get a process each. A child made by fork starts its own: two who write to one pipe would read each other's
answers.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from storm_hf.errors import VideoReadError
from storm_hf.optional import require
from storm_hf.video.limits import ReadingBounds


PATIENCE_SECONDS = 300.0  # for a library, where the caller named no time: it may never come back
_START_SECONDS = 300.0  # torchcodec loads torch, which takes a minute on a crowded machine
CLIPS_PER_PROCESS = 256  # decord keeps memory of every clip (dmlc/decord issues 197, 208, 279)
_PIPE_BYTES = 2**20
WORKER = Path(__file__).with_name("library_worker.py")
_MODULE_OF = {"decord": "decord", "torchcodec": "torchcodec.decoders"}


class LibraryProcess:
    """One process that decodes with one library.

    Args:
        library (`str`):
            `decord` or `torchcodec`.
        process (`subprocess.Popen`):
            A running `library_worker`.
    """

    def __init__(self, library: str, process: "subprocess.Popen[bytes]") -> None:
        self.library = library
        self.num_clips = 0
        self._process = process
        self._is_answering = False
        self._is_expired = False

    @classmethod
    def start(cls, library: str) -> "LibraryProcess":
        """Start a process and wait until its library is loaded.

        Raises:
            DependencyError: If it is installed but does not load.
            VideoReadError: If it loads in this process but not in its own.
        """
        command = [sys.executable, "-P", str(WORKER), library]
        places = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=places, pipesize=_PIPE_BYTES
        )
        started = cls(library, process)
        try:
            started._wait_until_loaded()
        except BaseException:
            started.stop()
            raise
        return started

    @property
    def is_usable(self) -> bool:
        """True if it can take the next clip: it runs, owes no answer, and is not too old."""
        is_idle = not self._is_answering and not self._is_expired
        return is_idle and self.num_clips < CLIPS_PER_PROCESS and self._process.poll() is None

    def open(self, bounds: ReadingBounds) -> int:
        """Open the file and return how many frames the library counts in it.

        Raises:
            VideoReadError: If the library cannot read it, takes too long, or crashes.
        """
        self.num_clips += 1
        with self._asked({"open": os.fspath(bounds.path)}, bounds) as answer:
            return int(answer["num_frames"])

    def fetch(self, positions: Sequence[int], bounds: ReadingBounds) -> np.ndarray:
        """Decode frames of the open file.

        Args:
            positions (`Sequence[int]`):
                Frame numbers, as the library counts them.
            bounds ([`ReadingBounds`]):
                Limits of the reading.

        Returns:
            `np.ndarray` of shape `(num_frames, height, width, 3)`: RGB pixels, `uint8`.

        Raises:
            VideoReadError: If the library cannot decode them, gives more than allowed, takes too long, or crashes.
        """
        with self._asked({"fetch": list(positions)}, bounds) as answer:
            num_frames, height, width, num_channels = answer["shape"]
            bounds.check_frame(width, height)
            bounds.check_total(num_frames, width, height)
            frames = np.empty((num_frames, height, width, num_channels), dtype=np.uint8)
            assert self._process.stdout is not None
            if self._process.stdout.readinto(frames.data.cast("B")) < frames.nbytes:  # type: ignore[attr-defined]
                raise self._ended(bounds, _patience(bounds))
            return frames

    def close(self) -> None:
        """Let go of the open file."""
        self._send({"close": True})

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        """Close this side of both pipes."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _wait_until_loaded(self) -> None:
        with self._ended_after(_START_SECONDS):
            answer = self._receive()
        if answer is None or "error" in answer:
            reason = "no answer" if answer is None else answer["error"]
            require(_MODULE_OF[self.library])
            raise VideoReadError(f'{self.library} does not load in its process ({reason}). Use backend="pyav".')

    @contextmanager
    def _asked(self, request: dict[str, Any], bounds: ReadingBounds) -> Iterator[dict[str, Any]]:
        """Send a request; within the block, its answer is read in the time that is left."""
        bounds.check_time()
        seconds = _patience(bounds)
        with self._ended_after(seconds):
            self._send({**request, "seconds": seconds})
            answer = self._receive()
            if answer is None:
                raise self._ended(bounds, seconds)
            if "error" not in answer:
                yield answer
        if "error" in answer:
            raise VideoReadError(
                f'{bounds.path} cannot be read by {self.library} ({answer["error"]}). Use backend="pyav".'
            )

    @contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """Kill the process if the block takes longer; a process that was left in the middle of an answer is not usable."""
        self._is_answering = True
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
            self._is_answering = False
        finally:
            timer.cancel()
            timer.join()

    def _expire(self) -> None:
        self._is_expired = True
        self._process.kill()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended, as the missing answer will show
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any] | None:
        """Read the header of an answer, or None where the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def _ended(self, bounds: ReadingBounds, seconds: float) -> VideoReadError:
        """Explain why there is no answer."""
        path = bounds.path
        if self._is_expired:
            return VideoReadError(
                f"{path} was not read by {self.library} within {seconds:.3g} seconds, so its process was ended. "
                'Pass a longer timeout_seconds, or backend="pyav".',
                bounds.timeout_seconds or PATIENCE_SECONDS,
            )
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return VideoReadError(f'{path} made {self.library} crash ({how} of its process). Use backend="pyav".')


def _patience(bounds: ReadingBounds) -> float:
    remaining = bounds.remaining_seconds
    return PATIENCE_SECONDS if remaining is None else remaining


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
        DependencyError: If the library is not installed, or if it is installed but does not load.
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
