"""Libraries of our own making under the names of real ones, in files, since another process imports them."""

# What torchcodec promises, on top of PyAV: its FFmpeg libraries are not everywhere where its package is.
TORCHCODEC = """
from types import SimpleNamespace
import av
import numpy as np

class VideoDecoder:
    def __init__(self, source, *, dimension_order, seek_mode):
        assert (dimension_order, seek_mode) == ("NHWC", "exact")
        with av.open(source) as container:
            self.frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    def __len__(self):
        return len(self.frames)

    def get_frames_at(self, indices):
        frames = self.frames[indices]
        return SimpleNamespace(data=SimpleNamespace(numpy=lambda: frames))
"""

# Each replaces what opening a file does; the process writes down its id first.
DECORD = """
import ctypes
import os
from pathlib import Path
import numpy as np

with Path(__file__).with_name("processes").open("a") as file:
    file.write(f"{os.getpid()}\\n")

class DECORDError(Exception):
    pass

class VideoReader:
    def __init__(self, path, num_threads):
        ACTION

    def __len__(self):
        return 40
"""
SLEEP = "ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock, as decord does when it hangs"
CRASH = "os.abort()"
GIVE_UP = 'raise DECORDError("no such codec\\nand a long traceback of C++")'
CLAIM = "self.get_batch = lambda indices: type('Batch', (), {'asnumpy': lambda _: np.zeros(SHAPE, np.uint8)})()"


def write_decord(folder, action):
    (folder / "decord.py").write_text(DECORD.replace("ACTION", action))


def write_torchcodec(folder, code=TORCHCODEC):
    (folder / "torchcodec").mkdir()
    (folder / "torchcodec" / "__init__.py").touch()
    (folder / "torchcodec" / "decoders.py").write_text(code)


def process_ids(folder):
    """The processes that have loaded the decord of this folder."""
    return [int(line) for line in (folder / "processes").read_text().split()]
