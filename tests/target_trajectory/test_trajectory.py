import pytest
import torch

from storm_hf.errors import DatasetError, LatentError
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.target_trajectory.trajectory import FILE_NAME


@pytest.fixture(scope="module")
def features():
    """(clips, temporal patches, cells, hidden size), nearly all of it the same background."""
    generator = torch.Generator().manual_seed(0)
    return (20 * torch.randn(32, generator=generator) + torch.randn(60, 6, 4, 32, generator=generator)).half()


def fit(features, **options):
    return TargetTrajectory.fit(features.split(16), **{"num_latents": 6, "rank": 8, **options})


def random_pair_cosine(targets):
    return torch.nn.functional.cosine_similarity(targets[:-1], targets[1:], dim=-1).mean().item()


def test_whitened_targets_of_two_clips_have_nothing_in_common_and_naive_ones_everything(features):
    assert abs(random_pair_cosine(fit(features)(features))) < 0.1
    assert random_pair_cosine(TargetTrajectory(6, normalize="layernorm")(features)) > 0.99


@pytest.mark.parametrize("options", [{}, {"layout": "concat"}, {"pooling": "sequence"}, {"statistics": "per_slot"}])
def test_targets_have_the_size_of_the_hidden_states_and_unit_elements(features, options):
    targets = fit(features, **options)(features)
    assert targets.shape == (60, 6, 32)
    assert targets.dtype == torch.float32
    assert targets.square().mean().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"layout": "concat"}, {"pooling": "sequence"}, {"statistics": "per_slot"}])
def test_saved_targets_come_back_to_the_last_bit(features, options, tmp_path):
    trajectory = fit(features, **options)
    trajectory.save(tmp_path)
    assert torch.equal(TargetTrajectory.load(tmp_path)(features), trajectory(features))


@pytest.mark.parametrize("normalize", ["layernorm", "none"])
def test_targets_without_statistics_are_saved_too(features, normalize, tmp_path):
    TargetTrajectory(3, "sequence", normalize=normalize).save(tmp_path)
    loaded = TargetTrajectory.load(tmp_path)
    assert (loaded.num_latents, loaded.pooling, loaded.normalize) == (3, "sequence", normalize)
    assert loaded(features).shape == (60, 3, 32)


def test_saving_twice_gives_the_same_bytes(features, tmp_path):
    contents = {fit(features, layout="concat").save(tmp_path / name).read_bytes() for name in "ab"}
    assert len(contents) == 1


def test_lists_of_arrays_give_the_same_as_a_tensor(features):
    trajectory = fit(features)
    assert torch.equal(trajectory([clip.numpy() for clip in features[:3]]), trajectory(features[:3]))


def test_fitting_reads_single_clips_and_batches_alike(features):
    single = TargetTrajectory.fit((clip.numpy() for clip in features), num_latents=6, rank=8)
    torch.testing.assert_close(single(features), fit(features)(features), atol=1e-4, rtol=1e-4)


def test_pooled_statistics_serve_longer_videos(features):
    longer = fit(features[:, :4], num_latents=4).with_num_latents(6)
    assert longer(features).shape == (60, 6, 32)


def test_per_slot_statistics_refuse_another_length(features):
    with pytest.raises(LatentError, match="statistics='pooled'"):
        fit(features, statistics="per_slot").with_num_latents(8)


def test_unnormalised_targets_are_the_pooled_features(features):
    expected = features.float().mean(dim=2)
    torch.testing.assert_close(TargetTrajectory(6, normalize="none")(features), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs statistics"),
        ({"normalize": "zscore"}, "got 'zscore'"),
        ({"normalize": "layernorm", "layout": "concat"}, "larger than a latent"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(LatentError, match=message):
        TargetTrajectory(6, **options)


def test_fitting_on_nothing_is_refused():
    with pytest.raises(LatentError, match="two trajectories or more to fit statistics on but got 0"):
        TargetTrajectory.fit([], num_latents=2, rank=2)


def test_folder_without_targets_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=FILE_NAME):
        TargetTrajectory.load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("normalize", ["whiten", "none"])
def test_features_that_are_not_finite_are_refused_with_their_row(value, normalize):
    features = torch.randn(8, 6, 4, 16, generator=torch.Generator().manual_seed(0))
    trajectory = TargetTrajectory(3, normalize="none")
    if normalize == "whiten":
        trajectory = TargetTrajectory.fit([features], num_latents=3, rank=4)
    broken = features[:3].clone()
    broken[1, 2, 0, 5] = value
    with pytest.raises(DatasetError, match=r"others in row 1\."):
        trajectory(broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_targets_are_not_fitted_to_features_that_are_not_finite(value):
    batches = list(torch.randn(3, 8, 6, 4, 16, generator=torch.Generator().manual_seed(0)))
    batches[1][2, 0, 0, 0] = value
    with pytest.raises(DatasetError, match=r"others in row 10\. Encode those thought videos again"):
        TargetTrajectory.fit(batches, num_latents=3, rank=4)
