import math

import numpy as np
import pytest

from storm_hf.diagnostics import ThoughtGallery
from storm_hf.evaluation.thought_gallery import Gallery


@pytest.fixture
def gallery():
    """Four entries in three directions; two show the same state."""
    latents = np.array([[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 1, 0], [4, 0, 0, 0]], np.float32)
    frames = np.random.default_rng(0).integers(256, size=(4, 6, 8, 3), dtype=np.uint8)
    return ThoughtGallery(latents, ["red", "blue", "green", "red"], frames)


def test_nearest_is_by_direction_and_not_by_length(gallery):
    near = gallery.neighbours(np.array([[0, 0.1, 0, 0], [0, 0, 50, 0]]), num_neighbours=1)
    assert near.index.tolist() == [[1], [2]]
    assert near.state.tolist() == ["blue", "green"]
    np.testing.assert_allclose(near.similarity, [[1], [1]])


def test_neighbours_come_in_the_order_of_their_cosines(gallery):
    near = gallery.neighbours(np.array([0, 4, 3, 0]), num_neighbours=3)
    assert near.index[:2].tolist() == [1, 2]
    np.testing.assert_allclose(near.similarity, [0.8, 0.6, 0], atol=1e-6)
    assert near.state == "blue"


def test_share_is_that_of_all_entries_with_the_nearest_state(gallery):
    """Cosines 1, 0, 0, 1 at temperature 0.1: two entries of weight 1 and two of weight exp(-10)."""
    assert gallery.neighbours(np.array([1, 0, 0, 0])).share == pytest.approx(2 / (2 + 2 * math.exp(-10)))
    blue = gallery.neighbours(np.array([0.0, 1, 0, 0]))
    assert blue.share == pytest.approx(1 / (1 + 3 * math.exp(-10)))


def test_rollouts_are_looked_up_whole(gallery):
    latents = np.random.default_rng(1).standard_normal((5, 6, 4))  # (questions, steps, hidden size)
    near = gallery.neighbours(latents, num_neighbours=2)
    assert near.index.shape == near.similarity.shape == (5, 6, 2)
    assert near.state.shape == near.share.shape == (5, 6)
    one = gallery.neighbours(latents[3, 2], num_neighbours=2)
    assert (near.state[3, 2], near.index[3, 2].tolist()) == (one.state, one.index.tolist())
    assert near.share[3, 2] == pytest.approx(float(one.share))


def test_latent_of_zeros_has_no_direction_but_an_answer(gallery):
    near = gallery.neighbours(np.zeros(4))
    assert near.similarity.tolist() == [0, 0, 0]
    assert 0 < near.share <= 1


def test_chance_is_how_often_a_random_entry_is_right(gallery):
    assert gallery.chance(np.array([["red", "blue"], ["green", "red"]])) == pytest.approx(
        (0.5 + 0.25 + 0.25 + 0.5) / 4
    )
    assert gallery.chance(np.array([["black"]])) == 0


def test_saved_gallery_is_the_same_again(gallery, tmp_path):
    gallery.save(tmp_path / "storm")
    again = ThoughtGallery.open(tmp_path / "storm")
    np.testing.assert_array_equal(again.latents, gallery.latents)  # these are exact in half precision
    assert again.latents.dtype == np.float32
    assert again.states == gallery.states
    np.testing.assert_array_equal(again.frames, gallery.frames)


def test_saved_gallery_is_what_storm_ask_reads(gallery, tmp_path):
    gallery.save(tmp_path)
    assert Gallery.load(tmp_path).nearest(np.array([[0, 0, 2, 0], [1, 0, 0, 0]])) == [("green", 1.0), ("red", 1.0)]
