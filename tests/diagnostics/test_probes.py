import numpy as np
import pytest

from storm_hf.diagnostics.geometry import probe_states


NAMES = np.array(["red", "blue", "green", "yellow"])


def latents_of(states, size, noise, seed=0):
    generator = np.random.default_rng(seed)
    codes = {name: generator.normal(size=size) for name in NAMES}
    drawn = np.array([[codes[state] for state in row] for row in states])
    return (drawn + noise * generator.normal(size=drawn.shape)).astype(np.float32)


@pytest.fixture
def states():
    return NAMES[np.random.default_rng(5).integers(4, size=(120, 2))]


CLIPS = [f"{index}.mp4" for index in range(120)]


@pytest.mark.parametrize("size", [16, 400])  # solved in the space of the latents, and in that of the clips
def test_state_that_is_there_is_read(states, size):
    for probe in probe_states(latents_of(states, size, noise=0.1), states, CLIPS):
        assert probe.accuracy.mean == 1.0
        assert probe.num_held_out == 36


@pytest.mark.parametrize("size", [16, 400])
def test_state_that_is_not_there_is_guessed(states, size):
    noise = np.random.default_rng(1).normal(size=(120, 2, size)).astype(np.float32)
    for probe in probe_states(noise, states, CLIPS):
        assert probe.accuracy.low < 0.3
        assert probe.chance < 0.5


def test_step_is_probed_on_its_own(states):
    latents = latents_of(states, 16, noise=0.1)
    latents[:, 1] = 0
    first, second = probe_states(latents, states, CLIPS)
    assert first.accuracy.mean == 1.0
    assert second.accuracy.mean == second.chance


def test_questions_about_a_fitted_clip_are_not_held_out():
    """Latents name the clip and nothing of its state: whoever tests on fitted clips reads every state."""
    generator = np.random.default_rng(0)
    of_clip = generator.normal(size=(30, 1, 256))
    states = np.repeat(NAMES[generator.integers(4, size=(30, 1))], 8, axis=0)
    clips = [clip for clip in CLIPS[:30] for _ in range(8)]
    (probe,) = probe_states(np.repeat(of_clip, 8, axis=0).astype(np.float32), states, clips)
    assert probe.accuracy.mean < 0.7
    assert probe.num_held_out == 9 * 8


def test_few_clips_are_not_probed(states):
    assert probe_states(latents_of(states, 16, 0.1)[:9], states[:9], CLIPS[:9]) == []
