"""Open file of a clip, as PyAV reads it, and the frames read from it.

FFmpeg gets bytes and never a name to open: it follows no playlist, pattern or address. Errors of the system are kept apart
from what FFmpeg makes of missing bytes, so that a fault of the machine is not taken for one of the file.

Axes: T frames, H height, W width.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from storm_hf.errors import MachineError, StormError, VideoReadError, is_machine_fault
from storm_hf.video.limits import reading_defaults


_ALSO_OF_CODECS = (errno.EIO, errno.EPERM)
_SPARE_BYTES = 2**26  # that a machine with free memory can give


class ClipFile:
    """A file that FFmpeg reads through Python.

    Args:
        path (`Path`):
            The file.

    Raises:
        VideoReadError: If there is no such file.
        MachineError: If the system does not open it.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)  # FFmpeg looks at the suffix of formats that it cannot recognize by their content
        self._path = path
        self._fault: OSError | None = None
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise _opening_error(path, error) from error

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes. After an error of the system the file has no more; see `check`."""
        try:
            return b"" if self._fault else self._file.read(size) or b""
        except OSError as error:
            self._fault = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, or return -1 where there is none, such as before the beginning: headers make FFmpeg ask for it."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and is_machine_fault(error):
                self._fault = error
            return -1

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check(self) -> None:
        """Raise [`MachineError`] if the system could not read the file to where FFmpeg asked for it."""
        if self._fault is not None:
            raise machine_error(self._path, self._fault) from self._fault


def machine_error(path: Path, error: BaseException) -> MachineError:
    """Make the error of a machine that cannot read a file now."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MachineError(
        f"{path} cannot be read on this machine now: {reason}. The file itself may be sound. Mend that (mount, permissions, "
        "memory, limits), and give the same command again."
    )


def _opening_error(path: Path, error: OSError) -> MachineError | VideoReadError:
    """Make the error of a file that the system does not open: the machine's fault or, where it does not exist, the caller's."""
    if is_machine_fault(error):
        return machine_error(path, error)
    if reading_defaults().expects_files:
        return MachineError(
            f"{path} was there before and is gone: {error.strerror}. Bring it back (is its disk mounted?), and give the same "
            "command again."
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return VideoReadError(f"{path} does not exist.")
    return VideoReadError(f"{path} cannot be opened: {error.strerror}.")


@contextmanager
def system_errors_named(path: Path) -> Iterator[None]:
    """Raise a system error about a file as an error of this package; see `_opening_error`."""
    try:
        yield
    except StormError:
        raise
    except OSError as error:
        raise _opening_error(path, error) from error


def raise_machine_fault(path: Path, error: av.error.FFmpegError) -> None:
    """Raise [`MachineError`] if an error of FFmpeg is one of the system.

    Where a header asks for more memory than there can be, FFmpeg reports that none is left, and codecs report broken data as
    errors of input and output. Neither is a fault of the machine.
    """
    if isinstance(error, av.error.MemoryError):
        if _is_out_of_memory():
            raise machine_error(path, error) from error
    elif is_machine_fault(error) and error.errno not in _ALSO_OF_CODECS:
        raise machine_error(path, error) from error


def check_file(path: Path) -> None:
    """Make sure that there is a file with something in it.

    Raises:
        VideoReadError: If the file is missing, a folder, no file but a pipe or a device, or empty.
        MachineError: If the system cannot tell.
    """
    status = _status(path)
    if stat.S_ISDIR(status.st_mode):
        raise VideoReadError(f"{path} is a folder; expected a video file.")
    if not stat.S_ISREG(status.st_mode):
        raise VideoReadError(f"{path} is a pipe or a device, which cannot be read twice. Copy it into a file.")
    if status.st_size == 0:
        raise VideoReadError(f"{path} is empty; the copy or download that made it may have failed.")


def _status(path: Path) -> Any:
    try:
        return path.stat()
    except OSError as error:
        raise _opening_error(path, error) from error
    except ValueError as error:  # a name that no file can have
        raise VideoReadError(f"{str(path)!r} does not exist.") from error


def _is_out_of_memory() -> bool:
    try:
        bytearray(_SPARE_BYTES)
    except MemoryError:
        return True
    return False


@dataclass(frozen=True, eq=False)
class VideoClip:
    """The frames that were asked of a video, upright and in the order they are shown.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            RGB pixels, `uint8`, 0 to 255, turned as a player would show them.
        timestamps (`np.ndarray` of shape `(num_frames,)`):
            Seconds at which each frame is shown, counted from the first frame of the video, `float64`.
        num_asked (`int`):
            Frames that were asked for. Equal to the number of frames returned.
        num_decoded (`int`):
            Number of frames with their own picture. The others repeat their nearest good neighbour.
        num_broken (`int`):
            Packets and pictures met on the way that the decoder reported as damaged.
        rotation (`int`):
            Degrees, counter-clockwise, by which the stored pictures were turned: 0, 90, 180 or 270.
        backend (`str`):
            The decoder that read the pixels: `pyav`, `torchcodec` or `decord`.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    num_asked: int
    num_decoded: int
    num_broken: int
    rotation: int
    backend: str

    @property
    def duration(self) -> float:
        """Seconds from the earliest to the latest of these frames."""
        return float(np.ptp(self.timestamps))

    @property
    def fps(self) -> float | None:
        """Mean rate of these frames in frames per second, or None where they all show one moment."""
        return (len(self.timestamps) - 1) / self.duration if self.duration > 0 else None
