"""Thought videos that show the same, found over a whole data set whatever its order and its shards.

A gate that remembers what came before would keep other rows in another order, and could not be run by many workers. So a
shard stores the hash of each of its thought videos, and which of them repeat is decided afterwards, from the set of all
hashes alone: of those alike, the one with the smallest id is kept.

Axes: T frames, H height, W width.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from PIL import Image

from storm_hf.annotations.record import Annotation
from storm_hf.errors import DatasetError
from storm_hf.thought_video.record import ThoughtVideo
from storm_hf.video.sample import evenly_spaced


_NUM_FRAMES = 4
_SIDE = 8
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.int64)
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
    most `max_distance` bits differ agree in at least one of `max_distance + 1` pieces, so only those are compared, or all
    where that is quicker.

    Args:
        hashes (`Mapping[str, str]`):
            From the id of a question to the `perceptual_hash` of its thought video; of those that the other gates keep.
        max_distance (`int`, *optional*, defaults to `10`):
            Bits of 256 in which two hashes of the same may differ.

    Returns:
        `dict[str, str]`: From each id that repeats to the id that is kept for it.
    """
    names = sorted(hashes)
    words = np.array([np.frombuffer(bytes.fromhex(hashes[name]), dtype=np.uint64) for name in names])
    pieces = _pieces(words, max_distance + 1)
    kept = _Kept(words, max_distance)
    duplicates: dict[str, str] = {}
    for position, name in enumerate(names):
        original = kept.first_near(position, pieces[position])
        if original is None:
            kept.add(position, pieces[position])
        else:
            duplicates[name] = names[original]
    return duplicates


class _Kept:
    """The hashes that are kept so far, each found by any of its pieces.

    Args:
        words (`np.ndarray` of shape `(num_hashes, 4)`):
            All hashes, in the order of their ids.
        max_distance (`int`):
            Bits in which two hashes of the same may differ.
    """

    def __init__(self, words: np.ndarray, max_distance: int) -> None:
        self._words = words
        self._max_distance = max_distance
        self._known = np.empty_like(words)
        self._positions = np.empty(len(words), dtype=np.int64)
        self._num_known = 0
        self._known_with: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, position: int, pieces: Sequence[int]) -> None:
        """Keep a hash."""
        self._known[self._num_known], self._positions[self._num_known] = self._words[position], position
        for piece in pieces:
            self._known_with[piece].append(self._num_known)
        self._num_known += 1

    def first_near(self, position: int, pieces: Sequence[int]) -> int | None:
        """Find the first kept hash near one; where many share a piece, comparing with all at once is quicker."""
        shared = [self._known_with[piece] for piece in pieces if piece in self._known_with]
        if sum(map(len, shared)) > self._num_known:
            candidates = np.arange(self._num_known)
        else:
            candidates = np.fromiter(chain.from_iterable(shared), dtype=np.int64)
        if len(candidates) == 0:
            return None
        distances = _count_bits(self._known[candidates] ^ self._words[position])
        near = candidates[distances <= self._max_distance]
        return int(self._positions[near.min()]) if len(near) else None


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


def _count_bits(words: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each row."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(words).sum(axis=1)
    return _BITS_OF_BYTE[words.view(np.uint8)].sum(axis=1)


def _pieces(words: np.ndarray, count: int) -> list[list[int]]:
    """Cut each hash into numbered pieces; bits that tell many hashes apart are distributed evenly.

    Neighbouring bits of a hash, such as of a sky, are often the same in all of them. A piece of such bits distinguishes nothing.
    """
    bits = np.unpackbits(words.view(np.uint8), axis=1)  # (num_hashes, 256)
    order = np.argsort(np.abs(bits.mean(axis=0, dtype=np.float64) - 0.5), kind="stable")
    dealt = [np.packbits(bits[:, order[index::count]], axis=1) for index in range(count)]
    keys = [[(index, piece.tobytes()) for piece in each] for index, each in enumerate(dealt)]
    return [list(map(hash, row)) for row in zip(*keys, strict=True)]
