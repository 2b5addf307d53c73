"""The table of the demo and that of the benchmarks: start, budget and prompts of each variant."""

import dataclasses

import pytest
import torch
from benchmarks.variants import CONTROLS, Placeholders, changed, controls, placeholders, scaled_to
from tests.diagnostics.thinker import make_thinker

from storm_hf.demo import DemoFolder, Training, Variant, demo_recipe, demo_variants
from storm_hf.demo.training import variant_task
from storm_hf.demo.variants import TITLES, storm_variant
from storm_hf.evaluation.batch import answer_questions


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    return make_thinker(tmp_path_factory.mktemp("thinker"), num_rows=3)


@pytest.fixture(params=["shuffle", "order", "lattice"])
def recipe(request):
    return demo_recipe(request.param)


def test_table_has_the_base_and_every_variant_that_the_page_names(recipe):
    assert list(demo_variants(recipe)) == ["base", *TITLES]


def test_storm_starts_from_stage_one_and_all_others_from_the_base(recipe):
    variants = demo_variants(recipe)
    assert variants["storm"].start == variants["align"]
    assert {name for name, variant in variants.items() if variant.start} == {"storm"}
    assert variants["storm"].num_updates == variants["align"].num_updates + recipe.trainings["answer"].num_updates


def test_storm_is_trained_as_the_recipe_says(recipe):
    storm = storm_variant(recipe)
    assert storm.start.training == recipe.trainings["align"]
    assert storm.training == recipe.trainings["answer"]
    assert storm.start.settings["whitening_rank"] == recipe.whitening_rank
    assert storm.start.settings["target_layout"] == recipe.target_layout
    assert storm.start.settings["bottleneck_share"] == storm.settings["bottleneck_share"] == recipe.bottleneck_share


@pytest.mark.parametrize(
    ("backbone", "column", "title"),
    [("tiny", "chain_of_thought", "text, verbose"), ("smollm2", "spoken_chain", "text, sentences")],
)
def test_text_baseline_of_a_language_model_writes_sentences_of_its_own_language(recipe, backbone, column, title):
    recipe = demo_recipe(recipe.world, backbone=backbone)
    variants, known = demo_variants(recipe), controls(recipe)
    assert variants["chain_of_thought"].chain == known["verbose_equal"].chain == recipe.chain_in_sentences == column
    assert known["verbose_equal"].title == title
    assert variants["terse_chain"].chain == known["terse_equal"].chain == "terse_chain"


def test_naive_targets_are_not_whitened():
    normalize = {
        storm_variant(demo_recipe(naive_targets=is_naive)).start.settings["target_normalize"]
        for is_naive in (False, True)
    }
    assert normalize == {"whiten", "layernorm"}


def test_only_variants_of_stage_one_have_targets(recipe):
    known = {**demo_variants(recipe), **controls(recipe)}
    assert {name: variant.stage_one.name for name, variant in known.items() if variant.stage_one} == {
        "align": "align",
        "storm": "align",
        "align_only": "align_only",
        "naive": "naive_align",
        "paper": "paper_align",
    }


def test_bottleneck_is_of_storm_and_of_naive_targets_alone(recipe):
    shares = {name: one.settings.get("bottleneck_share", 0) for name, one in controls(recipe).items()}
    with_bottleneck = ("storm", "naive", "align_only")
    assert all(shares[name] == recipe.bottleneck_share for name in with_bottleneck)
    assert all(share == 0 for name, share in shares.items() if name not in with_bottleneck)


def test_every_control_has_the_updates_of_storm(recipe, tmp_path):
    known = controls(recipe)
    assert {one.num_updates for one in known.values()} == {known["storm"].num_updates}
    tasks = [variant_task(DemoFolder(tmp_path), recipe, known[name]) for name in CONTROLS]
    assert [(task.name, task.total) for task in tasks] == [(name, known["storm"].num_updates) for name in CONTROLS]


def test_paper_and_naive_differ_from_storm_in_stage_one_alone(recipe):
    storm, known = storm_variant(recipe), controls(recipe)
    assert "target_layout" not in known["naive"].start.settings  # cells side by side need whitening
    for name in ("naive", "paper"):
        names = {"name": storm.name, "title": storm.title, "start": storm.start, "is_shown": True}
        assert dataclasses.replace(known[name], **names, settings=storm.settings) == storm
        assert known[name].start.training == storm.start.training
    assert known["paper"].start.config == {"latent_projector": "identity"}


def test_changed_storm_has_a_stage_one_of_its_own(recipe):
    storm = storm_variant(recipe)
    step = changed(storm, "step", "step", stage_one={"config": {"latent_attention": "step"}})
    assert (step.start.name, step.start.config) == ("step_align", {"latent_attention": "step"})
    assert (step.config, step.is_shown) == ({}, False)


def test_budget_is_shared_as_before():
    start = Variant("a_align", "A", Training(300, 1e-3), "align")
    variant = Variant("a", "A", Training(100, 1e-4), start=start)
    half, other = scaled_to(variant, 200, "half"), scaled_to(variant, 333, "other")
    assert (half.start.num_updates, half.training) == (150, Training(50, 1e-4))
    assert other.num_updates == 333
    assert scaled_to(Variant("b", "B", Training(10, 1e-3)), 7, "c").num_updates == 7


@pytest.fixture
def markers(thinker, recipe):
    return placeholders(recipe, "markers", "markers", 0).make_prompts(thinker.processor, thinker.model.config)


def test_markers_alone_end_the_prompt_and_nothing_is_rolled_out(thinker, markers):
    batch, plain = markers(thinker.rows), thinker.prompts(num_latents=0)(thinker.rows)
    start_id, latent_id, end_id = thinker.model.config.latent_block_ids
    assert batch["input_ids"][:, -2:].tolist() == [[start_id, end_id]] * 3
    assert torch.equal(batch["input_ids"][:, :-2], plain["input_ids"])
    assert not (batch["input_ids"] == latent_id).any()
    assert {batch[name].shape[1] for name in ("input_ids", "attention_mask", "mm_token_type_ids")} == {
        plain["input_ids"].shape[1] + 2
    }


@pytest.mark.parametrize("num_latents", [0, 2])
def test_model_with_placeholders_answers_without_latents(thinker, num_latents, monkeypatch):
    variant = Placeholders("pause", "pause", Training(1, 1e-3), num_latents=num_latents)
    latent_id = thinker.model.config.latent_token_id
    monkeypatch.setattr(thinker.model.config, "latent_token_id", None)
    prompts = variant.make_prompts(thinker.processor, thinker.model.config)
    assert (prompts(thinker.rows)["input_ids"] == latent_id).sum() == 3 * num_latents
    answers = answer_questions(thinker.model, prompts, thinker.rows, max_new_tokens=2)
    assert [answer.latents for answer in answers] == [None] * 3
