"""Numbers of samples that an MP4 or QuickTime file claims, looked at before FFmpeg allocates an index for them."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from storm_hf.errors import VideoReadError


_FIRST_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")
_HOLDERS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"))
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # bytes from the beginning of the content to the number of samples
_MAX_BOXES = 1_000_000


def check_sample_tables(path: Path) -> None:
    """Make sure that a file claims no more samples than it has bytes: a header of two kilobytes can claim two billion.

    Raises:
        VideoReadError: If it does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(8)
        if beginning[4:8] not in _FIRST_BOXES:
            return
        for count in _sample_counts(file, size):
            if count > size:
                raise VideoReadError(
                    f"{path} is damaged: its header claims {count:,} samples, and the file has {size:,} bytes."
                )


def _sample_counts(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield the number of samples that each table claims; boxes that hold others are entered."""
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return
        length, kind = struct.unpack_from(">I4s", header)
        num_bytes = 8
        if length == 1 and len(header) == 16:
            length, num_bytes = struct.unpack_from(">Q", header, 8)[0], 16
        if kind in _COUNT_AT:
            file.seek(position + num_bytes + _COUNT_AT[kind])
            if len(claimed := file.read(4)) == 4:
                yield struct.unpack(">I", claimed)[0]
        if kind in _HOLDERS:
            position += num_bytes
        elif length >= num_bytes and position + length < size:
            position += length
        else:
            return
