import dataclasses
import json

import numpy as np
import pytest
from tests.diagnostics.puppet import make_puppet
from tests.diagnostics.thinker import NUM_LATENTS

from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.diagnostics.questions import Questions
from storm_hf.errors import ConfigurationError


@pytest.fixture(scope="module")
def puppet(tmp_path_factory):
    return make_puppet(tmp_path_factory.mktemp("puppet"))


REASONS = {"targets": "The data has no thoughts.", "states": "The data has no states.", "simulator": "No world."}


def look_at(puppet, questions=None, *, uses_latents):
    with puppet.thinking(uses_latents=uses_latents):
        return diagnose(puppet.thinker.model, puppet.thinker.processor, questions or puppet.questions)


@pytest.fixture(scope="module")
def used(puppet):
    return look_at(puppet, uses_latents=True)


@pytest.fixture(scope="module")
def ignored(puppet):
    return look_at(puppet, uses_latents=False)


@pytest.fixture(scope="module")
def unknown(puppet):
    """A few questions of two wordings, of which nothing is known but the answers."""
    rows = [
        {**row, "question": f"{row['question']} {'ball' if index % 2 else 'cup'}"}
        for index, row in enumerate(puppet.questions.rows[:12])
    ]
    return look_at(puppet, Questions(rows, None, None, None, REASONS), uses_latents=True)


def test_model_that_answers_from_its_latents_is_said_to_use_them(used):
    assert used.verdict.outcome == "used"
    assert used.effects["own"].accuracy.mean == 1.0
    assert used.effects["donor"].follows_donor.mean == 1.0
    assert used.effects["donor"].accuracy.mean == 0.0
    assert used.effects["latents_only"].accuracy.mean == 1.0
    for name in ("zero", "markers_only", "no_latents"):  # without anything to read it says the first option
        assert used.effects[name].accuracy.mean < 0.5


def test_model_that_ignores_its_latents_is_said_not_to_use_them(ignored):
    assert ignored.verdict.outcome == "not_used"
    assert ignored.verdict.sentence.startswith("With another clip's latents the answer becomes that clip's in 0%")
    for effect in ignored.effects.values():
        assert effect.accuracy.mean == 1.0
        assert effect.changed.mean == effect.divergence.mean == 0.0


def test_latent_that_decides_is_found(used):
    """This one reads the last latent, and each of its latents is made anew from the clip."""
    assert [effect.follows_donor.mean for effect in used.only_step] == [0.0] * (NUM_LATENTS - 1) + [1.0]
    assert [effect.follows_donor.mean for effect in used.from_step] == [1.0] * NUM_LATENTS


def test_edit_that_the_rollout_forgets_does_not_follow_the_simulator(used):
    assert [edit.step for edit in used.counterfactuals] == list(range(1, NUM_LATENTS))
    assert all(edit.follows.mean == 0.0 and edit.keeps.mean == 1.0 for edit in used.counterfactuals)


def test_latents_are_looked_up_among_true_thoughts(used):
    last, first = used.retrieval[-1], used.retrieval[0]
    assert last.state == 1.0  # its latents hold the answer, which is the last state
    assert first.state < 0.9
    assert last.gallery_size == 60
    assert used.probes[-1].accuracy.mean > 0.9
    assert used.drift[0].cosine_others < used.drift[-1].cosine_free
    assert len(used.attention) == 3
    assert all(0 < layer.on_latents < 1 for layer in used.attention)


def test_what_cannot_be_had_is_absent_with_the_reason(unknown, tmp_path):
    assert unknown.retrieval is unknown.drift is unknown.target_geometry is unknown.probes is None
    assert unknown.counterfactuals is None
    assert "oracle" not in unknown.effects
    assert REASONS.items() <= unknown.absent.items()
    page = write_diagnosis(tmp_path, unknown).read_text()
    assert all(reason in page for reason in REASONS.values())


def test_few_clips_give_no_verdict(unknown):
    assert unknown.verdict.outcome == "unclear"
    assert unknown.verdict.sentence.startswith("12 clips are too few")


def test_question_of_another_clip_is_asked_with_its_latents(unknown):
    assert unknown.donor_question.follows.mean == 1.0
    assert 0 < unknown.donor_question.num_questions < 12


def test_two_questions_are_the_least(puppet):
    questions = dataclasses.replace(puppet.questions, rows=puppet.questions.rows[:1])
    with pytest.raises(ConfigurationError, match="two questions or more, got num_latents=4 and 1 questions"):
        diagnose(puppet.thinker.model, puppet.thinker.processor, questions)


def test_record_and_page_say_the_same(used, tmp_path):
    page = write_diagnosis(tmp_path, used).read_text()
    record = json.loads((tmp_path / "diagnosis.json").read_text())
    assert record["verdict"]["headline"] in page
    assert record["effects"]["donor"]["follows_donor"]["mean"] == 1.0
    assert record["verdict"]["thresholds"]["used"] == 0.5
    assert record["num_clips"] == 60
    for heading in (
        "Take the content away",
        "Which latent matters",
        "Where the answer looks",
        "How the verdict is made",
    ):
        assert heading in page
    assert "Not measured" not in page


def test_not_a_number_becomes_null(used):
    broken = dataclasses.replace(used, chance=float("nan"))
    assert json.loads(broken.to_json())["chance"] is None
    assert np.isnan(broken.chance)
