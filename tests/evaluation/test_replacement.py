import numpy as np
import pytest

from storm_hf.evaluation.replacement import noise_like, replace_latents


@pytest.fixture
def own():
    """Latents (4 steps, 256) around 3 with a spread of 2."""
    return (3 + 2 * np.random.default_rng(1).standard_normal((4, 256))).astype(np.float32)


def test_zero_is_zeros(own):
    np.testing.assert_array_equal(replace_latents("zero", own), np.zeros((4, 256)))


def test_mean_is_that_of_the_questions_own_steps_at_every_step(own):
    mean = replace_latents("mean", own)
    assert mean.shape == own.shape
    for step in range(4):
        np.testing.assert_allclose(mean[step], own.mean(axis=0))


def test_noise_keeps_mean_and_spread_and_nothing_else(own):
    noise = replace_latents("noise", own)
    assert noise.dtype == own.dtype
    assert noise.mean() == pytest.approx(own.mean(), abs=0.2)
    assert noise.std() == pytest.approx(own.std(), rel=0.1)
    assert abs(np.corrcoef(noise.ravel(), own.ravel())[0, 1]) < 0.1


def test_noise_differs_between_steps_and_is_drawn_from_the_seed(own):
    noise = replace_latents("noise", own, seed=3)
    assert not np.array_equal(noise[0], noise[1])
    np.testing.assert_array_equal(noise, replace_latents("noise", own, seed=3))
    assert not np.array_equal(noise, replace_latents("noise", own, seed=4))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_scale_multiplies_the_spread_and_leaves_the_mean(own, scale):
    noise = noise_like(own, scale=scale)
    assert noise.std() == pytest.approx(scale * own.std(), rel=0.1)
    assert noise.mean() == pytest.approx(own.mean(), abs=0.3)
