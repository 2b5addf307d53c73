import pytest
import torch

from storm_hf.errors import LatentError
from storm_hf.target_trajectory import pool_to_trajectory
from storm_hf.target_trajectory.pool import as_clips, pool_clips


# Two temporal patches of two cells, one feature: the moments are 2 and 6.
TWO_BY_TWO = torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]])[None]


def pooled(features, num_latents, **options):
    return pool_to_trajectory(features, num_latents, **options)[0].tolist()


def test_temporal_slot_is_the_mean_of_its_moment():
    assert pooled(TWO_BY_TWO, 2) == [[2.0], [6.0]]


def test_fewer_slots_than_moments_average_them():
    assert pooled(TWO_BY_TWO, 1) == [[4.0]]


def test_more_slots_than_moments_repeat_them():
    assert pooled(TWO_BY_TWO, 4) == [[2.0], [2.0], [6.0], [6.0]]


def test_moments_at_the_border_of_two_slots_belong_to_both():
    moments = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    assert pooled(moments, 2) == [[1.5], [4.0]]


def test_concat_keeps_cells_side_by_side():
    assert pooled(TWO_BY_TWO, 2, layout="concat") == [[1.0, 3.0], [5.0, 7.0]]
    assert pooled(TWO_BY_TWO, 1, layout="concat") == [[3.0, 5.0]]


def test_sequence_pooling_splits_the_flat_sequence():
    assert pooled(TWO_BY_TWO, 4, pooling="sequence") == [[1.0], [3.0], [5.0], [7.0]]
    assert pooled(TWO_BY_TWO, 2, pooling="sequence") == [[2.0], [6.0]]


def test_averages_are_taken_in_float32():
    features = torch.tensor([60000.0, 60000.0]).half().reshape(1, 1, 2, 1)
    result = pool_to_trajectory(features, 1)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(60000, rel=1e-3)


def test_clips_of_different_lengths_are_pooled_together():
    clips = [torch.zeros(2, 3, 4), torch.ones(5, 3, 4)]
    assert pool_clips(clips, 2).mean(dim=(1, 2)).tolist() == [0.0, 1.0]


def test_clips_whose_slots_differ_in_size_are_refused():
    with pytest.raises(LatentError, match="layout='average'"):
        pool_clips([torch.zeros(2, 3, 4), torch.zeros(2, 6, 4)], 2, layout="concat")


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (torch.zeros(2, 2, 4), {}, "Expected features of shape"),
        (torch.zeros(0, 2, 2, 4), {}, "none of them zero"),
        (TWO_BY_TWO, {"num_latents": 0}, "num_latents of 1 or more"),
        (TWO_BY_TWO, {"pooling": "max"}, "got 'max'"),
        (TWO_BY_TWO, {"layout": "grid"}, "got 'grid'"),
        (TWO_BY_TWO, {"pooling": "sequence", "layout": "concat"}, "no layout to keep"),
    ],
)
def test_what_cannot_be_pooled_is_refused(features, options, message):
    with pytest.raises(LatentError, match=message):
        pool_to_trajectory(features, options.pop("num_latents", 2), **options)


def test_row_without_features_is_named():
    with pytest.raises(LatentError, match="each of 3 rows, got none in 1, the first at position 1"):
        as_clips([TWO_BY_TWO[0], None, TWO_BY_TWO[0]])
