import numpy as np
import pytest

from storm_hf.diagnostics.interventions import CONTENT_FREE, shuffled, step_replacements, token_replacements


@pytest.fixture
def latents():
    """Latents (10 questions, 3 steps, 16)."""
    return np.random.default_rng(0).normal(size=(10, 3, 16)).astype(np.float32)


DONORS = np.roll(np.arange(10), 1)


def test_every_replacement_of_the_literature_has_a_name(latents):
    made = token_replacements(latents, DONORS)
    assert next(iter(made)) == "own"
    assert set(made) == {
        *CONTENT_FREE,
        "own",
        "noise_0.5",
        "noise_2",
        "first_repeated",
        "shuffled",
        "swap",
        "without_clip",
    }
    assert "oracle" in token_replacements(latents, DONORS, latents)


def test_what_is_fed_is_what_the_name_says(latents):
    made = token_replacements(latents, DONORS, targets=latents + 1)
    assert made["own"].fed is made["own"].for_rows is None
    np.testing.assert_array_equal(made["swap"].fed, latents[DONORS])
    np.testing.assert_array_equal(made["oracle"].fed, latents + 1)
    np.testing.assert_array_equal(made["first_repeated"].fed, np.repeat(latents[:, :1], 3, axis=1))
    np.testing.assert_array_equal(made["shuffled"].fed, latents[made["shuffled"].donors])
    assert made["noise_2"].fed.std() == pytest.approx(2 * latents.std(), rel=0.15)
    layouts = {name: made[name].layout for name in ("zero", "markers_only", "skipped", "without_clip")}
    assert list(layouts.values()) == ["latents", "markers", "skipped", "without_clip"]


def test_steps_are_replaced_alone_and_from_there_on(latents):
    made = step_replacements(latents, DONORS)
    steps = {name: list(intervention.steps) for name, intervention in made.items()}
    assert steps == {"only_0": [0], "only_1": [1], "only_2": [2], "from_0": [0, 1, 2], "from_1": [1, 2], "from_2": [2]}


@pytest.mark.parametrize("count", [2, 3, 50])
def test_shuffled_gives_nobody_its_own_and_leaves_nobody_out(count):
    for seed in range(10):
        others = shuffled(count, seed)
        assert sorted(others) == list(range(count))
        assert (others != np.arange(count)).all()
