"""Limits of one reading: pixels of a frame, bytes of the result, packets read, and seconds.

A header is not trusted with memory. What it claims is checked before anything is allocated, and what the decoder gives
is checked again.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.settings import PositiveInt, check_values


_CHANNELS = 3
_SMALLEST_PICTURE = 32 * 32  # pixels assumed where a header gives less, or nothing


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """Largest video, and largest result, that is read. A larger one is an error, not a full memory.

    Args:
        max_frame_pixels (`int`, *optional*, defaults to `35651584`):
            Width times height of a picture. The default, 8192 x 4352, is the most that level 6 of H.264, HEVC and AV1
            allows.
        max_total_bytes (`int`, *optional*, defaults to `4294967296`):
            Bytes of all frames returned, three for each pixel.
        max_packets (`int`, *optional*, defaults to `4000000`):
            Packets to look at in one pass through the file. The default is 37 hours at 30 frames per second.

    Raises:
        ConfigurationError: If a limit is no whole number, or below 1.
    """

    max_frame_pixels: PositiveInt = 35_651_584
    max_total_bytes: PositiveInt = 4 * 2**30
    max_packets: PositiveInt = 4_000_000

    def __post_init__(self) -> None:
        """Refuse limits that no video keeps."""
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class ReadingDefaults:
    """Settings of readings that do not bring their own; see `bounded_reading`."""

    limits: VideoLimits = VideoLimits()
    timeout_seconds: float | None = None
    backend: str = "auto"
    expects_files: bool = False


_NO_DEFAULTS = ReadingDefaults()
_DEFAULTS: ContextVar[ReadingDefaults] = ContextVar("reading defaults", default=_NO_DEFAULTS)


def reading_defaults() -> ReadingDefaults:
    """Return the settings of the innermost `bounded_reading` around this call."""
    return _DEFAULTS.get()


@contextmanager
def bounded_reading(
    limits: VideoLimits,
    timeout_seconds: float | None = None,
    *,
    backend: str = "auto",
    expects_files: bool = False,
) -> Iterator[None]:
    """Bound every reading of a block that does not bring bounds of its own.

    Code that reads thousands of unknown clips, in many places, sets this once and around all of them. Threads that begin in
    the block are not concerned.

    Args:
        limits ([`VideoLimits`]):
            Largest video.
        timeout_seconds (`float`, *optional*):
            Seconds that one reading may take. None for as long as it needs.
        backend (`str`, *optional*, defaults to `"auto"`):
            Backend of `read_video` in the block, where a call asks for `auto`.
        expects_files (`bool`, *optional*, defaults to `False`):
            Whether the files were there before. One that is missing is then a [`MachineError`], such as of a mount that is
            away, and not a [`VideoReadError`].

    Raises:
        ConfigurationError: If `timeout_seconds` is not a positive number of seconds.
    """
    _check_timeout(timeout_seconds)
    defaults = ReadingDefaults(
        limits=limits, timeout_seconds=timeout_seconds, backend=backend, expects_files=expects_files
    )
    token = _DEFAULTS.set(defaults)
    try:
        yield
    finally:
        _DEFAULTS.reset(token)


class ReadingBounds:
    """The limits of one reading, and the clock that runs from its start.

    Args:
        path (`Path`):
            The file that is read.
        limits ([`VideoLimits`], *optional*):
            Largest video. By default those of `bounded_reading`, if there is one around, else `VideoLimits()`.
        timeout_seconds (`float`, *optional*):
            Seconds that the whole reading may take. By default those of `bounded_reading`, else as long as it needs.

    Raises:
        ConfigurationError: If `timeout_seconds` is not a positive number of seconds.
    """

    def __init__(self, path: Path, limits: VideoLimits | None = None, timeout_seconds: float | None = None) -> None:
        defaults = _DEFAULTS.get()
        timeout_seconds = defaults.timeout_seconds if timeout_seconds is None else timeout_seconds
        _check_timeout(timeout_seconds)
        self.path = path
        self.limits = limits or defaults.limits
        self.timeout_seconds = timeout_seconds
        self._end = math.inf if timeout_seconds is None else monotonic() + timeout_seconds
        self._refused: str | None = None

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds that are left, 0 at the end, or None where there is no end."""
        return None if self._end == math.inf else max(0.0, self._end - monotonic())

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Do not count the time that the block takes."""
        start = monotonic()
        yield
        self._end += monotonic() - start

    def check_time(self) -> None:
        """Raise [`VideoReadError`] if the time is over."""
        if self.remaining_seconds == 0:
            raise VideoReadError(
                f"{self.path} was not read within timeout_seconds={self.timeout_seconds:g}. "
                "Pass a longer time, or ask for fewer frames.",
                self.timeout_seconds,
            )

    def check_packet(self, position: int) -> None:
        """Raise [`VideoReadError`] if the file has too many packets to come to this one, or the time is over."""
        self.check_time()
        if position >= self.limits.max_packets:
            raise VideoReadError(
                f"{self.path} has more than max_packets={self.limits.max_packets:,} packets. "
                "Cut it into shorter clips, or pass limits=VideoLimits(max_packets=...) with a higher limit."
            )

    def check_frame(self, width: int, height: int) -> None:
        """Raise [`VideoReadError`] if one picture of this size is too large."""
        if width * height > self.limits.max_frame_pixels:
            raise VideoReadError(self._oversize(f"of {width} x {height}, {width * height:,} pixels", width * height))

    def check_total(self, num_frames: int, width: int, height: int) -> None:
        """Raise [`VideoReadError`] if so many frames of this size are too much."""
        num_bytes = num_frames * max(width * height, _SMALLEST_PICTURE) * _CHANNELS
        if num_bytes > self.limits.max_total_bytes:
            raise VideoReadError(
                f"{self.path} was asked for {num_frames:,} frames of {width} x {height}, {num_bytes:,} bytes of pixels; "
                f"the limit is max_total_bytes={self.limits.max_total_bytes:,}. Ask for fewer frames, or pass "
                f"limits=VideoLimits(max_total_bytes={num_bytes})."
            )

    def note_refused_size(self, width: int, height: int) -> None:
        """Remember that the decoder, which knows the limit, refused a picture; a size of 0 is unknown."""
        if width * height == 0:
            self._refused = self._oversize("that are larger than its header says", "...")
        elif width * height > self.limits.max_frame_pixels:
            self._refused = self._oversize(f"of {width} x {height}, {width * height:,} pixels", width * height)

    def raise_refused_size(self) -> None:
        """Raise [`VideoReadError`] if the decoder refused a picture for its size."""
        if self._refused is not None:
            raise VideoReadError(self._refused)

    def _oversize(self, size: str, enough: int | str) -> str:
        return (
            f"{self.path} has pictures {size}; the limit is max_frame_pixels={self.limits.max_frame_pixels:,}. "
            f"Make them smaller, or pass limits=VideoLimits(max_frame_pixels={enough})."
        )


def _check_timeout(timeout_seconds: float | None) -> None:
    if timeout_seconds is not None and not 0 < timeout_seconds <= threading.TIMEOUT_MAX:
        raise ConfigurationError(
            f"Expected timeout_seconds above 0 but got {timeout_seconds}. Leave it out to wait without end."
        )
