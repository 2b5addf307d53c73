"""The Gaussian policy over latents: closed forms, and noise where Stage I has whitened."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from storm_hf.errors import LatentError
from storm_hf.reinforce.noise import GaussianLatents, LatentRecord, LatentSubspace, NoisyRollout
from storm_hf.target_trajectory.trajectory import TargetTrajectory


HIDDEN_SIZE, RANK = 32, 5


@pytest.fixture(scope="module")
def targets():
    features = torch.randn(64, 3, 2, HIDDEN_SIZE, generator=torch.Generator().manual_seed(0))
    return TargetTrajectory.fit([features], num_latents=3, rank=RANK)


@pytest.fixture(scope="module")
def subspace(targets):
    return LatentSubspace.of_targets(targets, HIDDEN_SIZE)


def latents(*shape, seed=0):
    return torch.randn(*shape, HIDDEN_SIZE, generator=torch.Generator().manual_seed(seed))


def test_subspace_is_that_in_which_targets_lie(targets, subspace):
    features = torch.randn(8, 3, 2, HIDDEN_SIZE, generator=torch.Generator().manual_seed(1))
    aligned = targets(features)
    assert subspace.rank == RANK
    torch.testing.assert_close(subspace.basis @ subspace.basis.T, torch.eye(RANK))
    torch.testing.assert_close(subspace.coordinates(aligned) @ subspace.basis, aligned)


def test_noise_lies_in_the_subspace_and_has_its_share_of_the_latents_size(subspace):
    torch.manual_seed(0)
    policy, mean = GaussianLatents(subspace, noise=0.3), 7 * latents(4000)
    noise = subspace.draw(policy.std(mean))
    torch.testing.assert_close(subspace.coordinates(noise) @ subspace.basis, noise)
    assert noise.square().mean().sqrt() / mean.square().mean().sqrt() == pytest.approx(0.3, rel=0.03)


def test_without_whitening_noise_has_every_direction():
    space = LatentSubspace(HIDDEN_SIZE)
    torch.manual_seed(0)
    noise = space.draw(torch.full((4000,), 0.5))
    assert space.rank == HIDDEN_SIZE
    torch.testing.assert_close(noise.std(dim=0), torch.full((HIDDEN_SIZE,), 0.5), rtol=0.1, atol=0)


def test_targets_that_were_not_whitened_leave_the_whole_space():
    assert LatentSubspace.of_targets(TargetTrajectory(3, normalize="none"), HIDDEN_SIZE).basis is None


def test_density_and_divergence_are_those_of_a_normal_distribution(subspace):
    policy, std = GaussianLatents(subspace, 0.1), torch.tensor([0.2, 0.7, 1.5])
    fed, mean, reference = latents(3), latents(3, seed=1), latents(3, seed=2)

    def normal(center):
        return Independent(Normal(center, std[:, None].expand(-1, center.shape[-1])), 1)

    constant = 0.5 * RANK * torch.log(torch.tensor(2 * torch.pi))
    expected = normal(subspace.coordinates(mean)).log_prob(subspace.coordinates(fed)) + constant
    torch.testing.assert_close(policy.log_density(fed, mean, std), expected)
    expected = kl_divergence(normal(mean), normal(reference))  # in all directions
    torch.testing.assert_close(policy.divergence(mean, reference, std), expected)


def test_record_replays_noise_around_new_means_and_donors_as_they_were(subspace):
    torch.manual_seed(0)
    policy, donors = GaussianLatents(subspace, 0.5), latents(2, 3, seed=3)
    noisy, given = NoisyRollout(policy), NoisyRollout(policy, donors)
    steps = [latents(2, seed=step) for step in range(3)]
    fed = [noisy(step, latent) for step, latent in enumerate(steps)]
    for step, latent in enumerate(steps):
        assert torch.equal(given(step, latent), donors[:, step])
    record = LatentRecord.cat([noisy.record, given.record])
    assert record.is_given.tolist() == [False, False, True, True]
    for step, latent in enumerate(steps):
        replayed = record.replay(step, torch.cat([latent + 1, latent + 1]))
        torch.testing.assert_close(replayed[:2], fed[step] + 1)
        assert torch.equal(replayed[2:], donors[:, step])


def test_subspace_of_another_model_is_refused(targets):
    with pytest.raises(LatentError, match="Expected a subspace of latents of size 16, got one of size 32"):
        LatentSubspace.of_targets(targets, 16)


@pytest.mark.parametrize("name", ["log_density", "divergence"])
def test_latents_in_16_bits_are_compared_in_32(name):
    policy = GaussianLatents(LatentSubspace(32), 0.1)
    latents, means = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    compare, std = getattr(policy, name), torch.full((4,), 0.1)
    assert torch.equal(compare(latents, means, std), compare(latents.float(), means.float(), std))
