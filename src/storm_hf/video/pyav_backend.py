"""Read frames with PyAV: only the packets that are needed, never more pictures in memory than were asked for.

A damaged packet costs its own picture, not the video: the gap is filled with the nearest picture that decoded.

Axes: T frames asked, U different ones among them, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from storm_hf.errors import VideoReadError
from storm_hf.video.clip_file import VideoClip
from storm_hf.video.limits import ReadingBounds
from storm_hf.video.sample import FrameSelection
from storm_hf.video.source import open_video, shown_size
from storm_hf.video.timeline import (
    PacketReader,
    Timeline,
    decoded,
    timeline_of_packets,
    timeline_of_pictures,
    use_threads,
)


def read_with_pyav(bounds: ReadingBounds, selection: FrameSelection, strict: bool) -> VideoClip:
    """Read the selected frames; see `read_video`."""
    timeline = timeline_of_packets(bounds)
    if timeline is not None:
        chosen = timeline.choose(selection, bounds)
        pictures = _collect(timeline, chosen, bounds)
    if timeline is None or pictures.num_found == 0 or pictures.packets_misled:
        timeline = timeline_of_pictures(bounds)
        if len(timeline.keys) == 0:
            bounds.raise_refused_size()
            raise VideoReadError(f"{bounds.path} holds no frame that can be decoded.")
        chosen = timeline.choose(selection, bounds)
        pictures = _collect(timeline, chosen, bounds)
    num_broken = timeline.num_broken + pictures.num_broken
    if strict and num_broken:
        bounds.raise_refused_size()
        raise VideoReadError(
            f"{bounds.path} is damaged: {num_broken} of its packets or pictures are broken. "
            "Pass strict=False to fill the gaps with the nearest good frames."
        )
    return pictures.clip(timeline, num_broken)


@dataclass(frozen=True)
class _Keyed:
    """A picture that the decoder gave, not yet converted."""

    key: int
    picture: VideoFrame


class _Pictures:
    """The pictures that were asked for, each converted as it comes out of the decoder.

    Args:
        timeline ([`~storm_hf.video.timeline.Timeline`]):
            The frames of the video.
        chosen (`np.ndarray` of shape `(num_asked,)`):
            The frames asked for, in any order, some perhaps more than once.
        bounds ([`ReadingBounds`]):
            Limits of the reading.
    """

    def __init__(self, timeline: Timeline, chosen: np.ndarray, bounds: ReadingBounds) -> None:
        self.num_broken = 0
        self._chosen = chosen
        self._bounds = bounds
        self._aspect = timeline.aspect
        # A slot for each different picture (U); `_first` is where it is asked for first, `_slots` its slot (T).
        self._keys, self._first, self._slots = np.unique(timeline.keys[chosen], return_index=True, return_inverse=True)
        self._slot_of = {int(key): slot for slot, key in enumerate(self._keys)}
        self._found = np.zeros(len(self._keys), dtype=bool)
        self._next_slot = 0  # every slot before it has a picture, its own or a neighbour's
        self._pixels: np.ndarray | None = None  # (T, H, W, 3)
        self._rotation = 0
        self._reformatter = VideoReformatter()  # one for all pictures: preparing it costs more than a small picture
        self._previous: _Keyed | None = None
        self._is_ascending = True

    @property
    def num_found(self) -> int:
        """Number of slots that hold their own picture."""
        return int(self._found.sum())

    @property
    def packets_misled(self) -> bool:
        """Check for pictures that are missing or in another order though nothing was broken: the times of the packets are wrong."""
        return self.num_broken == 0 and not (self._found.all() and self._is_ascending)

    def take(self, key: int, picture: VideoFrame) -> None:
        """Keep the picture if it was asked for, and fill the gaps before it that no picture came for."""
        current = _Keyed(key, picture)
        if self._previous is not None and key < self._previous.key:
            self._is_ascending = False  # decoders give pictures in the order they are shown
        while self._next_slot < len(self._keys) and self._keys[self._next_slot] < key:
            self._fill_gap(current)
        slot = self._slot_of.get(key)
        if slot is not None and not self._found[slot]:
            self._store(slot, picture)
            self._found[slot] = True
            self._next_slot = max(self._next_slot, slot + 1)
        self._previous = current

    def finish(self) -> None:
        """Fill the gaps after the last picture."""
        while self._previous is not None and self._next_slot < len(self._keys):
            self._fill_gap(self._previous)

    def clip(self, timeline: Timeline, num_broken: int) -> VideoClip:
        """Repeat the pictures that were asked for more than once, and report the result."""
        assert self._pixels is not None
        for position, first in enumerate(self._first[self._slots]):
            if first != position:
                self._pixels[position] = self._pixels[first]
        return VideoClip(
            frames=self._pixels,
            timestamps=timeline.seconds[self._chosen],
            num_asked=len(self._chosen),
            num_decoded=int(self._found[self._slots].sum()),
            num_broken=num_broken,
            rotation=self._rotation,
            backend="pyav",
        )

    def _fill_gap(self, current: _Keyed) -> None:
        if not self._found[self._next_slot]:
            key = self._keys[self._next_slot]
            neighbours = [current] if self._previous is None else [self._previous, current]
            self._store(self._next_slot, min(neighbours, key=lambda other: abs(other.key - key)).picture)
        self._next_slot += 1

    def _store(self, slot: int, picture: VideoFrame) -> None:
        width, height = shown_size(picture.width, picture.height, self._aspect)
        self._bounds.check_frame(width, height)
        position = self._first[slot]
        if self._pixels is None:
            self._bounds.check_total(len(self._chosen), width, height)
            self._rotation = _quarter_turns(picture) * 90
            pixels = self._upright(picture)
            self._pixels = np.empty((len(self._chosen), *pixels.shape), dtype=np.uint8)
            self._pixels[position] = pixels
        else:
            self._pixels[position] = self._upright(picture, size=self._pixels.shape[1:3])

    def _upright(self, picture: VideoFrame, size: tuple[int, ...] | None = None) -> np.ndarray:
        """Convert to RGB as a player shows it; `size` is (height, width) where the video changes its own on the way."""
        turns = _quarter_turns(picture)
        if size is None:
            width, height = shown_size(picture.width, picture.height, self._aspect)
        else:
            height, width = size[::-1] if turns % 2 else size
        pixels = self._reformatter.reformat(picture, width=width, height=height, format="rgb24").to_ndarray()
        return np.rot90(pixels, turns)


def _collect(timeline: Timeline, chosen: np.ndarray, bounds: ReadingBounds) -> _Pictures:
    """Decode what the chosen frames need."""
    pictures = _Pictures(timeline, chosen, bounds)
    for position, picture in enumerate(_pictures_in(timeline, chosen, bounds, pictures)):
        key = picture.pts if timeline.keyed_by_time else position
        if picture.is_corrupt:
            pictures.num_broken += 1
        if key is not None:
            pictures.take(key, picture)
    pictures.finish()
    return pictures


def _pictures_in(
    timeline: Timeline, chosen: np.ndarray, bounds: ReadingBounds, count: _Pictures
) -> Iterator[VideoFrame]:
    """Decode the packet ranges one after the other; between them the decoder is emptied and forgets."""
    ranges = timeline.packet_ranges(chosen)
    with open_video(bounds.path, bounds) as (container, stream):
        use_threads(stream, sum(last - first + 1 for first, last in ranges))
        for position, packet in PacketReader(container, stream, bounds):
            first, last = ranges[0]
            if position < first:
                continue
            yield from _counted(decoded(stream, packet, bounds), count)
            if position == last:
                yield from _counted(decoded(stream, None, bounds), count)
                stream.codec_context.flush_buffers()
                ranges = ranges[1:]
                if not ranges:
                    return
        yield from _counted(decoded(stream, None, bounds), count)


def _counted(outcome: tuple[list[VideoFrame], int], count: _Pictures) -> list[VideoFrame]:
    pictures, num_broken = outcome
    count.num_broken += num_broken
    return pictures


def _quarter_turns(picture: VideoFrame) -> int:
    """Count the quarter turns, counter-clockwise, that the file asks of a player."""
    return round(picture.rotation / 90) % 4
