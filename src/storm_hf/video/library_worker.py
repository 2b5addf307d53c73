"""Script at the other end of `library_process`: decodes with a library that may hang or crash.

It imports nothing of storm_hf, which would take longer than most clips. Its argument is the library. A request is a
line of JSON on standard input: `{"open": path, "seconds": s}`, then any number of `{"fetch": positions, "seconds": s}`,
then `{"close": true}`, which has no answer. An answer is a line of JSON on standard output: `{"num_frames": n}`,
`{"shape": [...]}` followed by the pixels, or `{"error": sentence}`.

Axes: T frames, H height, W width.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np


# From frame positions to pixels of shape (T, H, W, 3).
_FetchFrames = Callable[[list[int]], np.ndarray]

GRACE_SECONDS = 5.0  # after which the worker ends itself, if its parent process is gone


def _open_with_decord(decord: ModuleType, path: str) -> tuple[int, _FetchFrames]:
    """Open a file on one thread: with more, frames of damaged files come in another order."""
    reader = decord.VideoReader(path, num_threads=1)
    return len(reader), lambda positions: reader.get_batch(positions).asnumpy()


def _open_with_torchcodec(decoders: ModuleType, path: str) -> tuple[int, _FetchFrames]:
    """Open a file in the mode that scans it whole: the other one believes headers."""
    decoder = decoders.VideoDecoder(path, dimension_order="NHWC", seek_mode="exact")
    return len(decoder), lambda positions: decoder.get_frames_at(positions).data.numpy()


_LIBRARIES: dict[str, tuple[str, Callable[[Any, str], tuple[int, _FetchFrames]]]] = {
    "decord": ("decord", _open_with_decord),
    "torchcodec": ("torchcodec.decoders", _open_with_torchcodec),
}


def main() -> None:
    """Load the library, report it, and serve clips until the other end is closed."""
    answers = _take_standard_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which then ends this one
    module_name, open_file = _LIBRARIES[sys.argv[1]]
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an error of a shared library is reported, not hidden
        answer(answers, {"error": sentence(error)})
        return
    answer(answers, {"ready": True})
    with contextlib.suppress(BrokenPipeError):
        serve(answers, lambda path: open_file(module, path))


def serve(answers: BinaryIO, open_file: Callable[[str], tuple[int, _FetchFrames]]) -> None:
    """Answer requests one by one."""
    fetch: _FetchFrames | None = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "close" in request:
            fetch = None
            continue
        _end_after(request["seconds"] + GRACE_SECONDS)
        try:
            if "open" in request:
                num_frames, fetch = open_file(request["open"])
                answer(answers, {"num_frames": num_frames})
            else:
                assert fetch is not None
                frames = np.ascontiguousarray(fetch(request["fetch"]))  # (T, H, W, 3)
                answer(answers, {"shape": frames.shape}, frames)
        except BrokenPipeError:
            raise
        except Exception as error:  # each library has classes of its own; all are reported
            answer(answers, {"error": sentence(error)})
        _end_after(0)


def _take_standard_output() -> BinaryIO:
    """Keep standard output for answers: what native code prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _end_after(seconds: float) -> None:
    """Have the system end this process, even one that never returns to Python; 0 calls it off."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def answer(answers: BinaryIO, header: dict[str, Any], pixels: np.ndarray | None = None) -> None:
    """Write a header, and the pixels as they lie in memory."""
    answers.write(json.dumps(header).encode() + b"\n")
    if pixels is not None:
        answers.write(pixels.data.cast("B"))
    answers.flush()


def sentence(error: Exception) -> str:
    """Return the first line of a library's message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    main()
