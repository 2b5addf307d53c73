import numpy as np
import pytest

from storm_hf.diagnostics.geometry import (
    describe_drift,
    describe_geometry,
    describe_retrieval,
    effective_rank,
    pair_cosine,
)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_pair_cosine_is_the_mean_over_all_pairs():
    vectors = draw(7, 5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [unit[left] @ unit[right] for left in range(7) for right in range(7) if left != right]
    assert pair_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_same_latent_for_every_clip_has_cosine_one_and_rank_one():
    (step,) = describe_geometry(np.tile(draw(1, 1, 8), (20, 1, 1)))
    assert step.pair_cosine == pytest.approx(1.0)
    assert step.effective_rank == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_directions_of_equal_spread(rank):
    spread = np.linalg.qr(draw(200, rank) - draw(200, rank).mean(axis=0))[0]
    spread -= spread.mean(axis=0)
    assert effective_rank(spread @ np.linalg.qr(draw(8, rank, seed=1))[0].T) == pytest.approx(rank, rel=0.01)


def test_effective_rank_does_not_see_a_common_offset():
    vectors = draw(100, 6)
    assert effective_rank(vectors + 50) == pytest.approx(effective_rank(vectors), rel=1e-3)


def test_drift_keeps_direction_and_size_apart():
    targets, fed = draw(30, 2, 16), draw(30, 2, 16, seed=1)
    longer = describe_drift(2 * fed, fed, targets)
    assert [step.direction for step in longer] == pytest.approx([1.0, 1.0])
    assert [step.size for step in longer] == pytest.approx([2.0, 2.0])
    turned = describe_drift(fed[..., ::-1], fed, targets)
    assert [step.size for step in turned] == pytest.approx([1.0, 1.0])
    assert all(abs(step.direction) < 0.3 for step in turned)


def test_cosine_to_others_tells_a_common_part_from_a_match():
    common, own = 3 * draw(1, 1, 16), draw(30, 1, 16, seed=1)
    (step,) = describe_drift(common + own, common + own, common + own)
    assert step.cosine_free == pytest.approx(1.0)
    assert step.cosine_others > 0.8
    (apart,) = describe_drift(own, own, own)
    assert abs(apart.cosine_others) < 0.1


def test_latents_find_their_own_thoughts_among_all():
    targets = draw(50, 2, 16)
    latents = targets + 0.1 * draw(50, 2, 16, seed=1)
    latents[:, 1] = draw(50, 16, seed=2)
    first, second = describe_retrieval(latents, targets)
    assert first.own == 1.0
    assert second.own < 0.2
    assert (first.chance, first.gallery_size, first.state) == (1 / 50, 50, None)


def test_state_is_read_off_other_clips_only():
    """Each latent is its own thought exactly, but other thoughts of its state lie far away."""
    targets = draw(200, 1, 64)
    states = np.random.default_rng(3).integers(4, size=(200, 1)).astype(str)
    (found,) = describe_retrieval(targets, targets, states)
    assert found.own == 1.0
    assert found.state < 0.45
    assert found.state_chance == pytest.approx(0.25, abs=0.02)


def test_thoughts_of_one_state_are_found_by_it():
    codes = draw(4, 64)
    states = np.arange(100).reshape(100, 1) % 4
    targets = codes[states] + 0.1 * draw(100, 1, 64, seed=1)
    (found,) = describe_retrieval(targets, targets, states.astype(str))
    assert found.state == 1.0


def test_large_galleries_are_searched_in_pieces(monkeypatch):
    latents, targets = draw(50, 1, 8), draw(50, 1, 8, seed=1)
    whole = describe_retrieval(latents, targets)
    monkeypatch.setattr("storm_hf.diagnostics.geometry._ROWS_AT_ONCE", 7)
    assert describe_retrieval(latents, targets) == whole
