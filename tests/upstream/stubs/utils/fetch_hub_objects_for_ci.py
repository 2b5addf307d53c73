"""Stands in for a file that transformers' source distribution leaves out: no file comes over the network."""

import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image


_FOLDER = Path(tempfile.mkdtemp(prefix="storm-upstream-media-"))


def url_to_local_path(url: str) -> str:
    """A picture or a clip drawn here, under the name that the URL ends with."""
    path = _FOLDER / url.rpartition("/")[2]
    if path.suffix == ".png":
        Image.fromarray(_frame(0)).save(path)
    elif path.suffix == ".mp4":
        _write_clip(path)
    return str(path)


def _frame(index: int) -> np.ndarray:
    frame = np.full((240, 320, 3), 40, dtype=np.uint8)
    frame[100:140, 20 * index : 20 * index + 40] = 200
    return frame


def _write_clip(path: Path, num_frames: int = 11) -> None:
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream("mpeg4", rate=30)
        stream.width, stream.height = 320, 240
        for index in range(num_frames):
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(_frame(index), format="rgb24")))
        clip.mux(stream.encode())
