import numpy as np
import pytest
from tests.evaluation.world_checkpoint import save_gallery

from storm_hf.errors import CheckpointError
from storm_hf.evaluation.thought_gallery import GALLERY_FILE, Gallery, describe_latents


def test_nearest_entry_is_that_of_the_same_direction(tmp_path):
    save_gallery(tmp_path, np.eye(3, 8))
    nearest = Gallery.load(tmp_path).nearest(np.array([[0, 5, 0, 0, 0, 0, 0, 0], [0, 0, 3, 0, 4, 0, 0, 0]]))
    assert [state for state, _ in nearest] == ["state 1", "state 2"]
    assert [similarity for _, similarity in nearest] == pytest.approx([1.0, 0.6])


def test_steps_have_norm_and_cosine_to_the_step_before():
    first, second = describe_latents(np.array([[3.0, 4.0], [0.0, 2.0]]))
    assert (first.norm, first.cosine_to_previous, first.state) == (5.0, None, None)
    assert (second.norm, second.cosine_to_previous) == (2.0, pytest.approx(0.8))


def test_latent_of_zeros_is_described_without_a_division_by_zero():
    assert describe_latents(np.zeros((2, 4)))[1].cosine_to_previous == 0


def test_checkpoint_without_a_gallery_has_none(tmp_path):
    assert Gallery.load(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut off", b"text"])
def test_damaged_gallery_is_named(tmp_path, content):
    save_gallery(tmp_path, np.eye(2))
    (tmp_path / GALLERY_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="gallery.npz is damaged"):
        Gallery.load(tmp_path)


def test_gallery_of_another_model_is_refused(tmp_path):
    save_gallery(tmp_path, np.eye(8))
    with pytest.raises(CheckpointError, match="size 8 but this model thinks in size 4"):
        Gallery.load(tmp_path).nearest(np.ones((1, 4)))
