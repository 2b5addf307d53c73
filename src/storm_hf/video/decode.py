"""`read_video`: frames of a clip, by any backend."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from storm_hf.errors import StormError, is_machine_fault
from storm_hf.video.clip_file import VideoClip, machine_error
from storm_hf.video.library_backends import chosen_backend, read_with_decord, read_with_torchcodec
from storm_hf.video.limits import ReadingBounds, VideoLimits
from storm_hf.video.pyav_backend import read_with_pyav
from storm_hf.video.sample import FrameSelection


_READERS: dict[str, Callable[[ReadingBounds, FrameSelection, bool], VideoClip]] = {
    "pyav": read_with_pyav,
    "torchcodec": read_with_torchcodec,
    "decord": read_with_decord,
}


def read_video(
    path: str | os.PathLike[str],
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    indices: Sequence[int] | None = None,
    backend: str = "auto",
    strict: bool = True,
    timeout_seconds: float | None = None,
    limits: VideoLimits | None = None,
) -> VideoClip:
    """Read frames of a video with the times at which they are shown.

    Of `num_frames`, `fps` and `indices` at most one is given; none means every frame. Frames are taken evenly in
    presentation time, upright, without those that an edit list hides, and repeated where more are asked than exist.
    No more pictures are held in memory than asked for.

    Args:
        path (`str` or `os.PathLike`):
            The file.
        num_frames (`int`, *optional*):
            Frames to spread evenly from the first to the last one.
        fps (`float`, *optional*):
            Frames to take per second of video.
        indices (`Sequence[int]`, *optional*):
            Frames to take, counted from 0 in the order in which they are shown.
        backend (`str`, *optional*, defaults to `"auto"`):
            `pyav` reads everything that has a frame. `torchcodec` and `decord` are used on request, where installed, in a
            process of their own; they give up at the first damage. `auto` is what `set_video_backend` or
            `STORM_VIDEO_BACKEND` says, and PyAV without them.
        strict (`bool`, *optional*, defaults to `True`):
            Whether damage is an error. Otherwise gaps are filled with the nearest good frames, and counted.
        timeout_seconds (`float`, *optional*):
            Seconds that the reading may take. PyAV looks at the clock between packets; the process of another library is
            ended, and has five minutes where no time is given, since it may hang. Its start does not count.
        limits ([`VideoLimits`], *optional*, defaults to `VideoLimits()`):
            Largest video, and largest result, whatever its header claims. `bounded_reading` gives a
            whole block of readings other defaults, of this and of the time.

    Returns:
        [`VideoClip`]: Frames, timestamps, and how many were asked, decoded and broken.

    Raises:
        MachineError: If the machine fails and not the file: an I/O error, a mount that is away, too many open files,
            no memory.
        VideoReadError: If the file is missing, a folder, empty, no video, only sound, without a decodable frame,
            damaged (when strict), too large, not read in time, or not readable by the chosen backend. The message
            names the file and what to do.
        ConfigurationError: If the frames cannot be chosen as asked, or if the time-out or a limit is not positive.
        DependencyError: If the chosen backend is not installed, or if it is installed but does not load.
    """
    name = chosen_backend(backend, path)
    selection = FrameSelection(num_frames, fps, indices)
    try:
        return _READERS[name](ReadingBounds(Path(path), limits, timeout_seconds), selection, strict)
    except StormError:
        raise
    except (OSError, MemoryError) as error:
        if not is_machine_fault(error):
            raise
        raise machine_error(Path(path), error) from error
