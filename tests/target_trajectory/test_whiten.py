import pytest
import torch

from storm_hf.errors import LatentError
from storm_hf.target_trajectory import WhiteningStatistics


def trajectories(num_clips=400, num_latents=3, size=16, seed=0):
    """A big background, a clock in each slot, and a state of four dimensions of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    background = 10 * torch.randn(size, generator=generator)
    clock = torch.randn(num_latents, size, generator=generator)
    directions = torch.linalg.qr(torch.randn(size, 4, generator=generator)).Q * torch.tensor([2.0, 1.0, 0.7, 0.5])
    state = torch.randn(num_clips, num_latents, 4, generator=generator)
    return background + clock + state @ directions.T


@pytest.mark.parametrize("statistics", ["pooled", "per_slot"])
@pytest.mark.parametrize("hidden_size", [16, 8])
def test_training_set_has_no_mean_and_unit_elements(statistics, hidden_size):
    data = trajectories()
    unit = WhiteningStatistics.fit(data, 4, statistics=statistics, hidden_size=hidden_size).transform(data)
    assert unit.shape == (400, 3, hidden_size)
    assert unit.mean(dim=(0, 1)).abs().max() < 1e-4
    assert unit.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_components_become_equally_large_and_the_rest_is_dropped():
    data = trajectories()
    unit = WhiteningStatistics.fit(data, 4, statistics="per_slot").transform(data).flatten(0, 1)
    variances = torch.linalg.eigvalsh(unit.T @ unit / len(unit))
    assert variances[-4:].min() > 0.97 * variances[-1]
    assert variances[:-4].abs().max() < 1e-4


def test_whitening_turns_nothing_when_all_components_are_kept():
    """ZCA is the whitening closest to its input: a feature stays beside itself."""
    data = torch.randn(2000, 1, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.5])
    unit = WhiteningStatistics.fit(data, 3).transform(data).flatten(0, 1)
    correlation = torch.corrcoef(torch.cat([unit, data.flatten(0, 1)], dim=1).T)[:3, 3:]
    assert correlation.diagonal().min() > 0.99


def test_per_slot_statistics_remove_what_a_slot_always_shows_and_pooled_ones_do_not():
    data = trajectories()
    per_slot = WhiteningStatistics.fit(data, 4, statistics="per_slot").transform(data)
    pooled = WhiteningStatistics.fit(data, 4, statistics="pooled").transform(data)
    assert per_slot.mean(dim=0).abs().max() < 1e-4
    assert pooled.mean(dim=0).abs().max() > 0.1


def test_streamed_batches_give_the_statistics_of_the_whole():
    data = trajectories()
    whole = WhiteningStatistics.fit(data, 4)
    streamed = WhiteningStatistics.fit(iter(data.split(77)), 4)
    torch.testing.assert_close(streamed.projection, whole.projection)
    torch.testing.assert_close(streamed.mean, whole.mean)


def test_small_differences_on_a_large_background_survive():
    data = trajectories()
    far = WhiteningStatistics.fit(data + 1000, 4).transform(data + 1000)
    near = WhiteningStatistics.fit(data, 4).transform(data)
    assert torch.nn.functional.cosine_similarity(far.flatten(), near.flatten(), dim=0) > 0.999


def test_pooled_statistics_serve_more_steps_than_trained():
    statistics = WhiteningStatistics.fit(trajectories(num_latents=3), 4)
    assert statistics.num_latents is None
    assert statistics.transform(trajectories(num_latents=7)).shape == (400, 7, 16)


def test_per_slot_statistics_refuse_another_number_of_steps():
    statistics = WhiteningStatistics.fit(trajectories(num_latents=3), 4, statistics="per_slot")
    with pytest.raises(LatentError, match="statistics='pooled'"):
        statistics.transform(trajectories(num_latents=4))


def test_explained_grows_to_one():
    explained = WhiteningStatistics.fit(trajectories(), 4, statistics="per_slot").explained
    assert explained[3].item() == pytest.approx(1, abs=1e-4)
    assert explained[0] == pytest.approx(4 / (4 + 1 + 0.49 + 0.25), abs=0.05)


def test_rotation_into_another_size_depends_on_the_seed_alone():
    data = trajectories()
    first, second = (WhiteningStatistics.fit(data, 4, hidden_size=8, seed=3).projection for _ in range(2))
    other = WhiteningStatistics.fit(data, 4, hidden_size=8, seed=4).projection
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (trajectories(num_clips=1), {}, "two trajectories or more to fit statistics on but got 1"),
        (torch.ones(5, 3, 4), {}, "all of them are the same"),
        (trajectories(), {"rank": 17}, "rank from 1 to 16"),
        (trajectories(), {"hidden_size": 3}, "rank from 1 to 3"),
        (trajectories(), {"statistics": "slot"}, "pooled or per_slot"),
        ([trajectories(), trajectories(num_latents=2)], {}, "same number of slots"),
        (torch.zeros(5, 4), {}, "Expected trajectories of shape"),
    ],
)
def test_what_cannot_be_fitted_is_refused(data, options, message):
    with pytest.raises(LatentError, match=message):
        WhiteningStatistics.fit(data, options.pop("rank", 4), **options)


def test_slots_of_another_size_are_refused():
    with pytest.raises(LatentError, match="num_latents, 16"):
        WhiteningStatistics.fit(trajectories(), 4).transform(trajectories(size=8))


@pytest.mark.parametrize(("num_clips", "num_latents"), [(2, 3), (3, 3), (2, 6)])
def test_components_that_never_varied_are_left_out_with_a_warning(num_clips, num_latents, caplog):
    """They would be divided by nearly nothing, and new clips, which vary there, would be blown up fifteenfold."""
    generator = torch.Generator().manual_seed(0)
    fitted = WhiteningStatistics.fit(torch.randn(num_clips, num_latents, 32, generator=generator), 16)
    assert fitted.rank == min(16, num_clips * num_latents - 1)
    assert f"vary in {fitted.rank} components only" in caplog.text or fitted.rank == 16
    new = fitted.transform(torch.randn(50, num_latents, 32, generator=generator))
    assert new.pow(2).mean().sqrt() < 1.5


def test_rank_that_the_clips_hold_is_kept_in_silence(caplog):
    fitted = WhiteningStatistics.fit(torch.randn(8, 3, 32, generator=torch.Generator().manual_seed(0)), 16)
    assert (fitted.rank, caplog.text) == (16, "")
