"""Arms as data: what a prompt ends in, equal updates, and how a budget is shared between the stages."""

import copy
import dataclasses

import pytest
import torch
from tests.diagnostics.thinker import make_thinker

from storm_hf.demo import demo_recipe
from storm_hf.demo.controls import CONTROLS, control_tasks, naive_variant, paper_variant, plain_variant, storm_variant
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.variants import MarkersEncoder, Variant
from storm_hf.evaluation.answering import answer_questions


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    return make_thinker(tmp_path_factory.mktemp("thinker"), num_rows=3)


@pytest.fixture(params=["shuffle", "order", "lattice"])
def recipe(request):
    return demo_recipe(request.param)


def test_storm_is_trained_as_the_recipe_says(recipe):
    storm = storm_variant(recipe)
    assert storm.align_updates == recipe.trainings["align"].num_updates
    assert storm.answer_rate == recipe.trainings["answer"].learning_rate
    assert storm.align["whitening_rank"] == recipe.whitening_rank
    assert storm.align["target_layout"] == recipe.target_layout
    assert storm.bottleneck_share == recipe.bottleneck_share


def test_bottleneck_is_of_storm_and_of_naive_targets_alone(recipe):
    assert naive_variant(recipe).bottleneck_share == recipe.bottleneck_share
    assert paper_variant(recipe).bottleneck_share == 0
    for block in ("none", "pause", "markers", "latents"):
        assert plain_variant(recipe, "control", "control", block).bottleneck_share == 0


def test_every_control_has_the_updates_of_storm(recipe, tmp_path):
    storm = storm_variant(recipe)
    plain = plain_variant(recipe, "direct_equal", "direct", "none")
    assert {one.num_updates for one in (plain, naive_variant(recipe), paper_variant(recipe))} == {storm.num_updates}
    tasks = control_tasks(DemoFolder(tmp_path), recipe)
    assert [task.name for task in tasks] == list(CONTROLS)
    assert {task.total for task in tasks} == {storm.num_updates}


def test_paper_and_naive_differ_from_storm_in_stage_one_alone(recipe):
    storm = storm_variant(recipe)
    assert "target_layout" not in naive_variant(recipe).align  # cells side by side need whitening
    paper = dataclasses.replace(
        paper_variant(recipe),
        name=storm.name,
        title=storm.title,
        align=storm.align,
        latent_projector=None,
        bottleneck_share=recipe.bottleneck_share,
    )
    assert paper == storm


def test_budget_is_shared_as_before():
    variant = Variant("a", "A", align_updates=300, answer_updates=100)
    assert (variant.scaled_to(200).align_updates, variant.scaled_to(200).answer_updates) == (150, 50)
    assert variant.scaled_to(333).num_updates == 333
    assert Variant("b", "B", answer_updates=10).scaled_to(7).align_updates == 0


def test_markers_alone_end_the_prompt_and_nothing_is_rolled_out(thinker):
    markers = MarkersEncoder(thinker.processor, thinker.model.config, 0)
    batch, plain = markers(thinker.rows), thinker.prompts(num_latents=0)(thinker.rows)
    start_id, latent_id, end_id = thinker.model.config.latent_block_ids
    assert batch["input_ids"][:, -2:].tolist() == [[start_id, end_id]] * 3
    assert torch.equal(batch["input_ids"][:, :-2], plain["input_ids"])
    assert not (batch["input_ids"] == latent_id).any()
    assert {batch[name].shape[1] for name in ("input_ids", "attention_mask", "mm_token_type_ids")} == {
        plain["input_ids"].shape[1] + 2
    }


def test_model_with_markers_alone_answers_without_latents(thinker, monkeypatch):
    markers = MarkersEncoder(thinker.processor, copy.deepcopy(thinker.model.config), 0)
    monkeypatch.setattr(thinker.model.config, "latent_token_id", None)
    answers = answer_questions(thinker.model, markers, thinker.rows, max_new_tokens=2)
    assert [answer.latents for answer in answers] == [None] * 3
