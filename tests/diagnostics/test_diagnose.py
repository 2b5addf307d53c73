import dataclasses
import json

import numpy as np
import pytest
from tests.diagnostics.puppet import make_puppet
from tests.diagnostics.thinker import NUM_LATENTS

from storm_hf.diagnostics.diagnose import diagnose
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.errors import InterventionError


@pytest.fixture(scope="module")
def puppet(tmp_path_factory):
    return make_puppet(tmp_path_factory.mktemp("puppet"))


def look_at(puppet, *, uses_latents, **changes):
    questions = dataclasses.replace(puppet.questions, **changes)
    with puppet.thinking(uses_latents=uses_latents):
        return diagnose(puppet.thinker.model, puppet.thinker.processor, questions)


@pytest.fixture(scope="module")
def used(puppet):
    return look_at(puppet, uses_latents=True)


@pytest.fixture(scope="module")
def ignored(puppet):
    return look_at(puppet, uses_latents=False)


def test_model_that_answers_from_its_latents_is_said_to_use_them(used):
    assert used.verdict.outcome == "used"
    assert used.effects["own"].accuracy.mean == 1.0
    assert used.effects["swap"].follows_donor.mean == 1.0
    assert used.effects["swap"].accuracy.mean == 0.0
    for name in ("zero", "markers_only", "skipped"):  # without anything to read it says the first option
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


def test_what_cannot_be_had_is_absent_with_the_reason(puppet):
    reasons = {"targets": "no thoughts", "states": "no states", "simulator": "no world"}
    found = look_at(puppet, uses_latents=True, targets=None, states=None, world=None, absent=reasons)
    assert found.retrieval is found.drift is found.target_geometry is found.probes is found.counterfactuals is None
    assert "oracle" not in found.effects
    assert reasons.items() <= found.absent.items()
    assert found.verdict.outcome == "used"


def test_few_clips_give_no_verdict(puppet):
    questions = puppet.questions
    found = look_at(
        puppet, uses_latents=True, rows=questions.rows[:12], targets=questions.targets[:12], states=questions.states[:12]
    )
    assert found.verdict.outcome == "unclear"
    assert found.verdict.sentence.startswith("12 clips are too few")


def test_question_of_another_clip_is_asked_with_its_latents(puppet):
    rows = [
        {**row, "question": f"{row['question']} {'ball' if index % 2 else 'cup'}"}
        for index, row in enumerate(puppet.questions.rows)
    ]
    with puppet.thinking(uses_latents=True):
        questions = dataclasses.replace(puppet.questions, rows=rows)
        found = diagnose(puppet.thinker.model, puppet.thinker.processor, questions)
    assert found.donor_question.follows.mean == 1.0
    assert 0 < found.donor_question.num_questions < len(rows)


def test_two_questions_are_the_least(puppet):
    questions = dataclasses.replace(puppet.questions, rows=puppet.questions.rows[:1])
    with pytest.raises(InterventionError, match="two questions or more, got num_latents=4 and 1 questions"):
        diagnose(puppet.thinker.model, puppet.thinker.processor, questions)


def test_record_and_page_say_the_same(used, tmp_path):
    page = write_diagnosis(tmp_path, used).read_text()
    record = json.loads((tmp_path / "diagnosis.json").read_text())
    assert record["verdict"]["headline"] in page
    assert record["effects"]["swap"]["follows_donor"]["mean"] == 1.0
    assert record["verdict"]["thresholds"]["used"] == 0.5
    assert record["num_clips"] == 60
    for heading in ("Take the content away", "Which latent matters", "Where the answer looks", "How the verdict is made"):
        assert heading in page
    assert "Not measured" not in page


def test_page_gives_the_reason_for_what_is_missing(puppet, tmp_path):
    reasons = {"targets": "The data has no thoughts.", "states": "The data has no states.", "simulator": "No world."}
    found = look_at(puppet, uses_latents=False, targets=None, states=None, world=None, absent=reasons)
    page = write_diagnosis(tmp_path, found).read_text()
    assert all(reason in page for reason in reasons.values())


def test_same_seed_same_diagnosis(puppet, used):
    again = look_at(puppet, uses_latents=True)
    first, second = json.loads(used.to_json()), json.loads(again.to_json())
    del first["seconds"], second["seconds"]
    assert first == second


def test_not_a_number_becomes_null(used):
    broken = dataclasses.replace(used, chance=float("nan"))
    assert json.loads(broken.to_json())["chance"] is None
    assert np.isnan(broken.chance)
