"""Thought videos that show the same, found over a whole data set whatever its order and its shards.

A gate that remembers what came before would keep other rows in another order, and could not be run by many workers. So a
shard stores the hash of each of its thought videos, and which of them repeat is decided afterwards, from the set of all
hashes alone: of those alike, the one with the smallest id is kept.

Axes: T frames, H height, W width.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from storm_hf.annotations.record import Annotation
from storm_hf.errors import DatasetError
from storm_hf.thought_video.record import ThoughtVideo
from storm_hf.video.sample import evenly_spaced


_NUM_FRAMES = 4
_SIDE = 8
NUM_BITS = _NUM_FRAMES * _SIDE * _SIDE


def perceptual_hash(frames: np.ndarray) -> str:
    """Hash what a video shows, so that another encoding, size or brightness changes few bits of 256.

    Four frames, evenly spread, are scaled to 9 x 8 grey values, and each is compared with its right neighbour (the
    difference hash).

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`):
            RGB, `uint8`.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    chosen = np.round(evenly_spaced(np.arange(len(frames)), _NUM_FRAMES)).astype(int)
    images = [Image.fromarray(frames[index]).convert("L") for index in chosen]
    grey = [np.asarray(image.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), dtype=np.int16) for image in images]
    return np.packbits(np.diff(np.stack(grey), axis=2) > 0).tobytes().hex()


def find_duplicates(hashes: Mapping[str, str], max_distance: int = 10) -> dict[str, str]:
    """Find thought videos that repeat another one.

    Ids are gone through in their sorted order, and one is kept unless it is near one that was kept. Two hashes of which at
    most `max_distance` bits differ agree in at least one of `max_distance + 1` pieces, so only those are compared.

    Args:
        hashes (`Mapping[str, str]`):
            From the id of a question to the `perceptual_hash` of its thought video; of those that the other gates keep.
        max_distance (`int`, *optional*, defaults to `10`):
            Bits of 256 in which two hashes of the same may differ.

    Returns:
        `dict[str, str]`: From each id that repeats to the id that is kept for it.
    """
    kept_with: defaultdict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    duplicates: dict[str, str] = {}
    for name in sorted(hashes):
        bits = int(hashes[name], 16)
        pieces = list(_pieces(bits, max_distance + 1))
        near = (
            other
            for piece in pieces
            for other, known in kept_with[piece]
            if (bits ^ known).bit_count() <= max_distance
        )
        if (original := min(near, default=None)) is not None:
            duplicates[name] = original
            continue
        for piece in pieces:
            kept_with[piece].append((name, bits))
    return duplicates


@dataclass(frozen=True)
class DuplicateGate:
    """Refuses a thought video that repeats another one of the data set. Its verdict depends on no order.

    Args:
        hashes (`Mapping[str, str]`):
            Of the whole data set; see `find_duplicates`.
        max_distance (`int`, *optional*, defaults to `10`):
            Bits of 256 in which two hashes of the same may differ.
    """

    hashes: Mapping[str, str]
    max_distance: int = 10
    _original_of: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_original_of", find_duplicates(self.hashes, self.max_distance))

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Look up whether another one is kept instead.

        Raises:
            DatasetError: If the data set had no such thought video.
        """
        if annotation.id not in self.hashes:
            raise DatasetError(
                f"Expected the hash of the thought video of {annotation.id!r} but there is none. Hash all first."
            )
        original = self._original_of.get(annotation.id)
        return None if original is None else f"duplicate: it shows the same as the thought video of {original!r}"


def _pieces(bits: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut a hash into numbered pieces."""
    width = -(-NUM_BITS // count)
    for index in range(count):
        yield index, (bits >> index * width) & ((1 << width) - 1)
