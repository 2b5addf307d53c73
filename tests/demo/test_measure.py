import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tests.diagnostics.thinker import NUM_LATENTS, WORLD, make_thinker, saying

from storm_hf.demo import DemoFolder, Training, Variant, data, demo_recipe
from storm_hf.demo.measure import (
    Examinee,
    count_by_reply,
    deep_indices,
    make_gallery,
    measure_accuracy,
    measure_variant,
    pair_cosine,
)
from storm_hf.inputs.prompts import PromptEncoder
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.video import write_video


DEPTHS = (1, 2, 2, 3, 4, 4, 3, 2)
ANSWERS = ("red", "blue", "red", "red", "red", "blue", "green", "red")


@pytest.fixture(scope="module")
def recipe():
    """Two deep kinds of clips, and the first two of each depth for the accuracy by depth."""
    return dataclasses.replace(
        demo_recipe("shuffle"),
        test_depths={1: 1, 2: 3, 3: 2, 4: 2},
        deep=(3, 4),
        num_per_depth=2,
        num_latents=NUM_LATENTS,
    )


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    return make_thinker(tmp_path_factory.mktemp("clips"), num_rows=1)


@pytest.fixture(scope="module")
def tests(thinker):
    """One clip under eight names: what it is asked has these depths and answers."""
    row = thinker.rows[0]
    return [{**row, "depth": depth, "answer": answer} for depth, answer in zip(DEPTHS, ANSWERS, strict=True)]


def test_deep_clips_are_found_wherever_they_are(tests, recipe):
    assert deep_indices(tests, recipe) == [3, 4, 5, 6]


def measure(thinker, tests, recipe, said, num_latents, max_new_tokens=4):
    """Measure a model that always says the same."""
    prompts = PromptEncoder(thinker.processor, thinker.model.config, num_latents)
    examinee = Examinee(thinker.model, prompts, max_new_tokens)
    with saying(thinker, said):
        return measure_accuracy(examinee, tests, examinee.answer(tests), recipe)


def test_variant_that_always_says_red_is_correct_as_often_as_red_is(thinker, tests, recipe):
    measures = measure(thinker, tests, recipe, "red", NUM_LATENTS)
    assert measures["accuracy"] == 2 / 4
    assert measures["by_depth"] == {"1": 1.0, "2": 0.5, "3": 0.5, "4": 0.5}
    assert measures["forward_passes"] == NUM_LATENTS + 1
    assert measures["choices"] == ["red"] * 8


def test_variant_without_latents_costs_one_pass_and_a_chain_its_words(thinker, tests, recipe):
    for said, passes in (("red", 1), ("blue blue green red", 4)):
        measures = measure(thinker, tests, recipe, said, 0, max_new_tokens=8)
        assert (measures["forward_passes"], measures["accuracy"]) == (passes, 0.5)


def test_replies_are_counted_by_the_form_that_is_asked_for():
    replies = ["red", "B", "(C) red", "The ball is under the red cup."]
    rows = [{"answer": reply, "outcome": "red"} for reply in replies]
    answers = [SimpleNamespace(choice=choice) for choice in ("red", "blue", "red", None)]
    assert count_by_reply(answers, rows) == {
        "word": (1, 1),
        "letter": (0, 1),
        "letter and word": (1, 1),
        "sentence": (0, 1),
    }


def test_unreadable_answers_are_kept_as_none(thinker, tests, recipe):
    measures = measure(thinker, tests, recipe, "swap swap", 0)
    assert (measures["choices"], measures["accuracy"]) == ([None] * 8, 0)


@pytest.fixture
def measured(thinker, tests, recipe, monkeypatch):
    """Measure a variant whose model always says red."""
    asked = []

    def dataset(folder, split, *, with_thoughts):
        asked.append(split)
        return tests

    def second_form(folder, recipe):
        asked.append(recipe.second_form)
        return tests

    def measure(variant, **arguments):
        with saying(thinker, "red"):
            return measure_variant(
                DemoFolder("unread"), recipe, variant, thinker.model, thinker.processor, **arguments
            )

    monkeypatch.setattr(data, "dataset", dataset)
    monkeypatch.setattr(data, "tests_in_second_form", second_form)
    yield measure
    assert asked[:2] == ["test", "without options"]


def test_open_questions_are_tested_on_the_deep_clips_and_read_by_the_known_options(measured):
    assert measured(Variant("direct", "Direct", Training(1, 1e-3)))["open"] == {"accuracy": 0.5}


def test_latents_are_replaced_in_both_forms_of_the_questions(measured):
    results = measured(Variant("answer_only", "Stage II alone", Training(1, 1e-3), num_latents=NUM_LATENTS))
    kinds = ["own", "zero", "noise_per_dataset", "mean_over_questions", "latents_only", "follows_donor"]
    assert list(results["interventions"]) == list(results["open"]["interventions"]) == kinds
    assert results["interventions"]["own"] == results["accuracy"] == 0.5
    assert results["interventions"]["follows_donor"] == 0.5  # red is what half of the donors would say


def test_latents_of_a_variant_that_another_starts_from_are_left_alone(measured):
    variant = Variant("align", "Stage I", Training(1, 1e-3), "align", num_latents=NUM_LATENTS)
    results = measured(variant, with_interventions=False)
    assert "interventions" not in {**results, **results["open"]}


def test_cosine_of_pairs_compares_different_clips_at_the_same_step():
    same_at_each_step = np.tile(np.eye(3), (5, 1, 1))  # (clips, steps, hidden size)
    assert pair_cosine(same_at_each_step) == pytest.approx(1)
    opposite = np.concatenate([same_at_each_step[:1], -same_at_each_step[:1]])
    assert pair_cosine(opposite) == pytest.approx(-1)
    assert pair_cosine(np.zeros((4, 3, 2))) == 0


@pytest.fixture(scope="module")
def thoughts(tmp_path_factory):
    """Rows of the validation split, their features random."""
    folder, generator = tmp_path_factory.mktemp("thoughts"), np.random.default_rng(0)
    rows = []
    for seed in range(12):
        episode = WORLD.episode(seed)
        thought = write_video(folder / f"{seed}.mp4", episode.thought, fps=episode.fps)
        features = generator.standard_normal((NUM_LATENTS, 3, 8)).astype(np.float32)
        rows.append({"thought_video": str(thought), "states": list(episode.states), "thought_features": features})
    return rows


def test_gallery_holds_state_frame_and_target_of_one_step_of_each_clip(thoughts, recipe):
    trajectory = TargetTrajectory(NUM_LATENTS, normalize="layernorm")
    gallery = make_gallery(thoughts, trajectory, recipe)
    assert len(gallery.latents) == len(gallery.states) == len(gallery.frames) == 12
    targets = trajectory([row["thought_features"] for row in thoughts]).numpy()
    steps = set()
    for entry, row in enumerate(thoughts):
        step = int(np.abs(targets[entry] - gallery.latents[entry]).sum(axis=-1).argmin())
        np.testing.assert_allclose(gallery.latents[entry], targets[entry, step], atol=1e-6)
        assert gallery.states[entry] == row["states"][step]
        drawn = WORLD.episode(entry).thought[2 * step + 1].astype(int)
        assert np.abs(gallery.frames[entry] - drawn).mean() < 8  # what the codec loses
        steps.add(step)
    assert len(steps) > 1
