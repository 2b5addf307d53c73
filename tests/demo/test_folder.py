import dataclasses
import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from storm_hf.demo import demo_recipe
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.recipe import Training
from storm_hf.demo.tasks import Usage
from storm_hf.errors import StageError, StaleWorkError


@pytest.fixture
def folder(tmp_path):
    return DemoFolder(tmp_path / "runs" / "demo")


def hold(folder, ready, done):
    with folder.claimed(demo_recipe("order")):
        ready.set()
        done.wait(60)


def test_stage_is_done_once_and_never_again(folder):
    calls = []

    def work():
        calls.append(1)
        return Usage(1.0, 2.0, 3.0)

    folder.once("1_render", work)
    DemoFolder(folder.path).once("1_render", work)
    assert calls == [1]


def test_stage_that_failed_is_done_again(folder):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.once("1_render", fail)
    folder.once("1_render", lambda: Usage(5.0, 6.0, 7.0))
    assert folder.usage() == Usage(5.0, 6.0, 7.0)


def test_usage_adds_time_and_keeps_the_highest_memory(folder):
    folder.once("1_render", lambda: Usage(1.5, 2.0, 900.0))
    folder.once("2_base", lambda: Usage(4.0, 7.5, 300.0))
    assert folder.usage() == Usage(5.5, 9.5, 900.0)


def test_same_recipe_opens_the_folder_again(folder):
    folder.open(demo_recipe("order", seed=3))
    folder.open(demo_recipe("order", seed=3))


def test_two_demos_in_one_folder_are_refused_and_the_folder_named(folder):
    fork = get_context("fork")
    ready, done = fork.Event(), fork.Event()
    process = fork.Process(target=hold, args=(folder, ready, done))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(StageError) as refusal, folder.claimed(demo_recipe("order")):
            pass
    finally:
        done.set()
        process.join()
    assert str(folder.path) in str(refusal.value)
    assert "--out" in str(refusal.value)


def test_folder_is_free_after_a_demo_that_failed(folder):
    with pytest.raises(KeyboardInterrupt), folder.claimed(demo_recipe("order")):
        raise KeyboardInterrupt
    with folder.claimed(demo_recipe("order")):
        assert (folder.path / "recipe.json").is_file()


def test_folder_from_before_a_setting_was_known_has_its_default(folder):
    """Settings that a later version adds to the recipe were not part of an earlier run."""
    recipe = demo_recipe("shuffle")
    folder.open(recipe)
    file = folder.path / "recipe.json"
    known = {name: value for name, value in json.loads(file.read_text()).items() if name != "bottleneck_share"}
    file.write_text(json.dumps(known))
    folder.open(recipe)
    with pytest.raises(StaleWorkError, match="bottleneck_share=None, and this run has 0.5"):
        folder.open(dataclasses.replace(recipe, bottleneck_share=0.5))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 7}, "seed=0, and this run has 7"),
        ({"naive_targets": True}, "naive_targets=False, and this run has True"),
        ({"num_train": 10}, "num_train=3000, and this run has 10"),
        (
            {"trainings": {"base": Training(1, 0.5)}},
            "and this run has {'base': {'num_updates': 1, 'learning_rate': 0.5}}",
        ),
    ],
)
def test_other_recipe_is_refused_and_the_difference_named(folder, change, difference):
    recipe = demo_recipe("shuffle")
    folder.open(recipe)
    before = (folder.path / "recipe.json").read_bytes()
    with pytest.raises(StaleWorkError) as refusal:
        folder.open(dataclasses.replace(recipe, **change))
    assert difference in str(refusal.value)
    assert "--out" in str(refusal.value)
    assert (folder.path / "recipe.json").read_bytes() == before


def test_parts_lie_inside_the_folder_apart_from_each_other(folder):
    parts = [
        folder.data,
        folder.cached,
        folder.base,
        folder.storm,
        folder.logs,
        folder.variant("align"),
        folder.variant("storm"),
    ]
    assert len(set(parts)) == len(parts)
    assert all(Path(part).is_relative_to(folder.path) for part in parts)


def test_model_of_base_and_storm_lie_at_the_top_and_all_others_with_their_variant(folder):
    assert folder.checkpoint("base") == folder.base
    assert folder.checkpoint("storm") == folder.storm
    assert folder.checkpoint("align") == folder.variant("align")
