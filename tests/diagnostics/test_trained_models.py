"""What `storm diagnose` says of models that were trained for real, on good targets and on naive ones."""

import pytest
from tests.diagnostics.pupils import NUM_TESTED, examine, prepare, small_recipe, teach
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.demo import data
from storm_hf.evaluation import ClipQuestion, ask, load_checkpoint, read_clip


pytestmark = pytest.mark.slow

RECIPE = small_recipe()
NUM_ASKED, NUM_RIGHT = 32, 30


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
    assert found.effects["donor"].follows_donor.mean >= 0.95


@pytest.mark.parametrize("content_free", ["zero", "noise_per_dataset", "mean_over_questions"])
def test_without_content_in_its_latents_it_guesses(well_taught, content_free):
    _, found = well_taught
    assert is_near_chance(found.effects[content_free].accuracy.mean, found.chance)


@pytest.fixture(scope="module")
def checkpoint(well_taught, tmp_path_factory):
    folder, pupil = tmp_path_factory.mktemp("checkpoint") / "storm", well_taught[0]
    pupil.model.save_pretrained(folder)
    pupil.processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=[False, True], ids=["open", "with options"])
def options(request, rows):
    return [str(option) for option in rows[0]["options"]] if request.param else []


@pytest.fixture
def asked(rows):
    return [rows[index] for index in range(NUM_ASKED)]


def test_both_question_forms_are_answered_as_the_readme_asks(checkpoint, asked, options):
    model, processor = load_checkpoint(checkpoint)
    said = []
    for row in asked:
        clip = read_clip(str(row["video"]), processor)
        said.append(ask(model, processor, ClipQuestion(clip, "Which cup holds the ball at the end?", options)).text)
    assert sum(text == row["answer"] for text, row in zip(said, asked, strict=True)) >= NUM_RIGHT


def test_both_question_forms_are_answered_on_the_command_line(checkpoint, asked, options):
    question = ["Which cup holds the ball at the end?", "--model", checkpoint]
    given = [word for option in options for word in ("-o", option)]
    said = [CliRunner().invoke(app, ["ask", str(row["video"]), *question, *given]).stdout.strip() for row in asked]
    assert sum(text == row["answer"] for text, row in zip(said, asked, strict=True)) >= NUM_RIGHT


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
