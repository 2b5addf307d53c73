import pytest
import torch

from storm_hf.evaluation.replacement import replace_latents


@pytest.fixture
def own():
    return torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 5.0])[:, None, None]


def test_zero_feeds_zeros(own):
    assert torch.equal(replace_latents("zero", own)(0, own[:, 0]), torch.zeros(2, 64))


def test_mean_feeds_the_mean_of_the_rows_own_steps_at_every_step(own):
    intervene = replace_latents("mean", own)
    for step in range(4):
        assert torch.equal(intervene(step, own[:, step]), own.mean(dim=1))


def test_noise_keeps_the_size_of_what_it_replaces_and_not_its_direction(own):
    latent = own[:, 0].repeat(1, 64)
    noise = replace_latents("noise", own)(0, latent)
    torch.testing.assert_close(noise.square().mean(dim=1), latent.square().mean(dim=1), rtol=0.1, atol=0)
    assert torch.cosine_similarity(noise, latent).abs().max() < 0.1


def test_noise_differs_between_steps_and_is_drawn_from_the_seed(own):
    first, again = replace_latents("noise", own, seed=3), replace_latents("noise", own, seed=3)
    steps = [first(step, own[:, 0]) for step in range(2)]
    assert not torch.equal(*steps)
    assert torch.equal(steps[0], again(0, own[:, 0]))
