"""A decoder learns to draw targets, keeps what it learned, and says how well it draws."""

import numpy as np
import pytest
from tests.diagnostics.thinker import WORLD

from storm_hf.diagnostics.latent_decoder import (
    DecoderTraining,
    ThoughtDecoder,
    read_steps,
    states_drawn_right,
    train_decoder,
)
from storm_hf.errors import CheckpointError, LatentError


QUICK = DecoderTraining(num_updates=120, batch_size=32)


@pytest.fixture(scope="module")
def steps(thought_rows, trajectory):
    return read_steps(thought_rows, trajectory, max_pixels=16 * 64)


@pytest.fixture(scope="module")
def decoder(steps):
    return train_decoder(steps, steps, targets="here", training=QUICK)


def test_drawn_targets_show_the_true_state_and_noise_shows_none(decoder, steps):
    drawn = decoder.draw(steps.targets)
    assert drawn.shape == steps.frames.shape
    assert drawn.dtype == np.uint8
    right, _ = states_drawn_right(WORLD, list(drawn), steps.states)
    noise = np.random.default_rng(0).normal(size=steps.targets.shape).astype(np.float32)
    guessed, most_frequent = states_drawn_right(WORLD, list(decoder.draw(noise)), steps.states)
    assert right > 0.95
    assert guessed < 0.5
    assert most_frequent < 0.5


def test_explained_variance_is_that_of_the_drawings(decoder, steps):
    assert 0.8 < decoder.config.explained < 1
    untrained = train_decoder(steps, steps, targets="", training=DecoderTraining(num_updates=1, learning_rate=0.0))
    assert untrained.config.explained < 0.1


def test_same_seed_draws_the_same(steps):
    short = DecoderTraining(num_updates=3)
    first, second = (train_decoder(steps, steps, targets="", training=short) for _ in range(2))
    assert np.array_equal(first.draw(steps.targets), second.draw(steps.targets))


def test_saved_decoder_draws_the_same(decoder, steps, tmp_path):
    decoder.save(tmp_path)
    loaded = ThoughtDecoder.load(tmp_path)
    assert loaded.config == decoder.config
    assert np.array_equal(loaded.draw(steps.targets), decoder.draw(steps.targets))


def test_folder_without_decoder_has_none_and_a_broken_one_is_told(decoder, tmp_path):
    assert ThoughtDecoder.load(tmp_path) is None
    folder = decoder.save(tmp_path)
    (folder / "decoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Delete it"):
        ThoughtDecoder.load(tmp_path)


def test_latents_of_another_model_are_refused(decoder):
    with pytest.raises(LatentError, match=r"\(number, 128\) but got \(2, 64\)"):
        decoder.draw(np.zeros((2, 64), dtype=np.float32))
