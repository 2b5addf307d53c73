"""What `storm diagnose` says of models that were trained for real, on good targets and on naive ones."""

import pytest
from tests.diagnostics.pupils import NUM_TESTED, examine, prepare, small_recipe, teach

from storm_hf.demo import data


pytestmark = pytest.mark.slow

RECIPE = small_recipe()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("pupils"), RECIPE)


@pytest.fixture(scope="module")
def rows(folder):
    return data.dataset(folder, "test", with_thoughts=True)


@pytest.fixture(scope="module")
def well_taught(folder, rows):
    pupil = teach(folder, RECIPE, "whiten")
    return pupil, examine(pupil, rows, RECIPE)


@pytest.fixture(scope="module")
def naively_taught(folder, rows):
    pupil = teach(folder, RECIPE, "layernorm")
    return pupil, examine(pupil, rows, RECIPE)


def is_near_chance(share, chance):
    """Within three standard errors of what so many guesses get: .08 of 256."""
    return abs(share - chance) <= 3 * (chance * (1 - chance) / NUM_TESTED) ** 0.5


def test_model_that_learned_from_whitened_targets_is_said_to_use_its_latents(well_taught):
    _, found = well_taught
    assert found.verdict.outcome == "used"
    assert found.effects["own"].accuracy.mean >= 0.95
    assert found.effects["swap"].follows_donor.mean >= 0.95


@pytest.mark.parametrize("content_free", ["zero", "noise", "mean"])
def test_without_content_in_its_latents_it_guesses(well_taught, content_free):
    _, found = well_taught
    assert is_near_chance(found.effects[content_free].accuracy.mean, found.chance)


def test_latent_edited_on_the_way_leads_where_the_simulator_says(well_taught):
    _, found = well_taught
    assert len(found.counterfactuals) == RECIPE.num_latents - 1
    assert all(edit.follows.mean >= 0.95 for edit in found.counterfactuals)


def test_model_that_learned_from_naive_targets_is_said_not_to_use_its_latents(naively_taught):
    _, found = naively_taught
    assert found.verdict.outcome == "not_used"
    assert is_near_chance(found.effects["own"].accuracy.mean, found.chance)


def test_alignment_with_naive_targets_looks_perfect(well_taught, naively_taught):
    """The cosine tells the two models apart only beside that with the targets of other clips."""
    good, naive = well_taught[0].log, naively_taught[0].log
    assert min(good["latent_cosine"], naive["latent_cosine"]) >= 0.95
    assert abs(good["latent_cosine_baseline"]) <= 0.05
    assert naive["latent_cosine_baseline"] >= 0.95
