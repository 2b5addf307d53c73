"""Presentation time of each frame of a file, and the packets to decode for it.

Packets tell both without decoding a picture, and tell the truth where headers lie: frames that an edit list hides are
marked, variable frame rate is in their times. Where packets have no times, or lie too, every picture is decoded once
to count them.

Axes: T frames of the video.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import parent_process

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from storm_hf.video.clip_file import raise_machine_fault
from storm_hf.video.limits import ReadingBounds
from storm_hf.video.sample import FrameSelection
from storm_hf.video.source import open_video, pixel_aspect, shown_size


_DEFAULT_FPS = 25  # of streams with neither times nor a rate
_MANY_PACKETS = 64  # below it, starting decoder threads costs more than they save


@dataclass(frozen=True, eq=False)
class Timeline:
    """The frames of a video in the order they are shown.

    Args:
        keys (`np.ndarray` of shape `(num_video_frames,)`):
            Keys of the pictures, ascending: the presentation time in the stream's own unit, or its
            position where the stream has no times.
        seconds (`np.ndarray` of shape `(num_video_frames,)`):
            Presentation time of each frame, counted from the first one.
        packets (`np.ndarray` of shape `(num_video_frames,)`, *optional*):
            Position, in decoding order, of the packet of each frame. None where it is unknown.
        entry_points (`np.ndarray`):
            Positions of the packets where decoding can begin.
        keyed_by_time (`bool`):
            Whether `keys` are presentation times.
        size (`tuple[int, int]`):
            Width and height, as shown, that the header claims, in pixels; 0 where it claims none.
        num_broken (`int`):
            1 where the file ends in the middle, else 0.
        aspect (`Fraction`, *optional*, defaults to `1`):
            Width of a stored pixel over its height.
    """

    keys: np.ndarray
    seconds: np.ndarray
    packets: np.ndarray | None
    entry_points: np.ndarray
    keyed_by_time: bool
    size: tuple[int, int]
    num_broken: int
    aspect: Fraction = Fraction(1)

    def choose(self, selection: FrameSelection, bounds: ReadingBounds) -> np.ndarray:
        """Find the frames that are asked for, after making sure that they are not too many to hold.

        Returns:
            `np.ndarray` of shape `(num_asked,)`: Positions among the frames of the video.

        Raises:
            VideoReadError: If they would take more than `max_total_bytes`.
            ConfigurationError: If the video has no such frames.
        """
        bounds.check_total(selection.count(self.seconds), *self.size)
        return selection.choose(self.seconds)

    def packet_ranges(self, frames: np.ndarray) -> list[tuple[int, int]]:
        """Find the packets to decode for some frames, as ascending disjoint ranges with both ends included."""
        if self.packets is None:
            return [(0, np.iinfo(np.int64).max)]
        shown_at = _frames_of_packets(self.packets, self.entry_points)
        ranges: list[tuple[int, int]] = []
        for first, last in sorted(
            (self._entry_point(frame, shown_at), int(self.packets[frame])) for frame in set(frames)
        ):
            if ranges and first <= ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
            else:
                ranges.append((first, last))
        return ranges

    def _entry_point(self, frame: int, shown_at: np.ndarray) -> int:
        """Find the last entry point that is both decoded and shown no later than the frame."""
        assert self.packets is not None
        position = int(np.searchsorted(self.entry_points, self.packets[frame], side="right")) - 1
        while position >= 0 and not 0 <= shown_at[position] <= frame:
            position -= 1
        return int(self.entry_points[position]) if position >= 0 else 0


def timeline_of_packets(bounds: ReadingBounds) -> Timeline | None:
    """Read the times that packets carry, without decoding; None if some packet carries none."""
    times, positions, entry_points = array("q"), array("q"), array("q")  # not lists: there may be millions
    with open_video(bounds.path, bounds) as (container, stream):
        packets = PacketReader(container, stream, bounds)
        for position, packet in packets:
            if packet.is_keyframe:
                entry_points.append(position)
            if packet.is_discard:
                continue
            if packet.pts is None:
                return None
            times.append(packet.pts)
            positions.append(position)
        if not times or stream.time_base is None:
            return None
        time_base, aspect = stream.time_base, pixel_aspect(stream)
        size = shown_size(stream.width, stream.height, aspect)
    keys, order = np.unique(times, return_index=True)
    return Timeline(
        keys=keys,
        seconds=_seconds_since_first(keys, time_base),
        packets=np.array(positions)[order],
        entry_points=np.array(entry_points, dtype=np.int64),
        keyed_by_time=True,
        size=size,
        aspect=aspect,
        num_broken=packets.num_broken,
    )


def timeline_of_pictures(bounds: ReadingBounds) -> Timeline:
    """Decode every picture, keep none, and take the times that the pictures carry, unless they contradict their order."""
    with open_video(bounds.path, bounds) as (container, stream):
        use_threads(stream)
        packets = PacketReader(container, stream, bounds)
        times = [picture.pts for _, packet in packets for picture in decoded(stream, packet, bounds)[0]]
        times += [picture.pts for picture in decoded(stream, None, bounds)[0]]
        time_base, aspect = stream.time_base, pixel_aspect(stream)
        size = shown_size(stream.width, stream.height, aspect)
        rate = stream.guessed_rate or stream.average_rate or Fraction(_DEFAULT_FPS)
    known = [time for time in times if time is not None]
    is_ordered = (
        known == sorted(known) or packets.num_broken > 0
    )  # AVI has no times of its own for pictures out of order
    keyed_by_time = time_base is not None and len(set(known)) == len(times) and is_ordered
    keys = np.sort(np.array(known if keyed_by_time else range(len(times)), dtype=np.int64))
    return Timeline(
        keys=keys,
        seconds=_seconds_since_first(keys, time_base if keyed_by_time and time_base else 1 / rate),
        packets=None,
        entry_points=np.zeros(1, dtype=np.int64),
        keyed_by_time=keyed_by_time,
        size=size,
        aspect=aspect,
        num_broken=packets.num_broken,
    )


class PacketReader:
    """The packets of a stream that hold something, numbered; a file cut off in the middle ends early.

    Args:
        container (`InputContainer`):
            The open file.
        stream (`VideoStream`):
            The stream whose packets are read.
        bounds ([`ReadingBounds`]):
            Limits of the reading. Empty packets count: a file may hold nothing else.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, bounds: ReadingBounds) -> None:
        self.num_broken = 0
        self._bounds = bounds
        self._packets = container.demux(stream)

    def __iter__(self) -> Iterator[tuple[int, Packet]]:
        """Yield position and packet in decoding order."""
        position = 0
        try:
            for count, packet in enumerate(self._packets):
                self._bounds.check_packet(count)
                if packet.size:
                    yield position, packet
                    position += 1
        except av.error.FFmpegError as error:
            self._bounds.check_time()
            raise_machine_fault(self._bounds.path, error)
            self.num_broken = 1


def decoded(stream: VideoStream, packet: Packet | None, bounds: ReadingBounds) -> tuple[list[VideoFrame], int]:
    """Decode a packet, or what the decoder still holds (None), and return 1 if that failed, else 0."""
    try:
        return stream.codec_context.decode(packet), 0
    except av.error.FFmpegError as error:
        raise_machine_fault(bounds.path, error)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height or isinstance(error, av.error.ArgumentError):
            bounds.note_refused_size(width, height)
        return [], 1


def use_threads(stream: VideoStream, num_packets: int = _MANY_PACKETS) -> None:
    """Decode long videos on all cores, and short ones on the caller's; so do workers, of whom there is one for each core."""
    if num_packets < _MANY_PACKETS or parent_process() is not None:
        stream.codec_context.thread_count = 1
    else:
        stream.thread_type = "AUTO"


def _seconds_since_first(keys: np.ndarray, unit: Fraction) -> np.ndarray:
    return (keys - keys[:1]).astype(np.float64) * float(unit)


def _frames_of_packets(packets: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Find the frame that is decoded from the packet at each position, -1 where it is hidden."""
    order = np.argsort(packets)
    slots = np.minimum(np.searchsorted(packets, positions, sorter=order), len(packets) - 1)
    return np.where(packets[order[slots]] == positions, order[slots], -1)
