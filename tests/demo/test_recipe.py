import dataclasses
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from storm_hf.demo import demo_recipe
from storm_hf.demo.data import world_recipe
from storm_hf.demo.variants import demo_variants
from storm_hf.errors import ConfigurationError
from storm_hf.worlds import WORLD_NAMES, make_world, registry
from storm_hf.worlds.bounce import Bounce
from storm_hf.worlds.world import DemoSettings


SOURCE = Path(registry.__file__).parents[1]
CONTROLS = ("direct", "chain_of_thought", "terse_chain")


@pytest.fixture(params=WORLD_NAMES)
def recipe(request):
    return demo_recipe(request.param)


def test_each_control_gets_at_least_the_updates_of_storm(recipe):
    storm = recipe.trainings["align"].num_updates + recipe.trainings["answer"].num_updates
    assert all(recipe.trainings[name].num_updates >= storm for name in CONTROLS)


def test_second_stage_learns_at_most_a_tenth_as_fast_as_the_first(recipe):
    assert recipe.trainings["answer"].learning_rate <= recipe.trainings["align"].learning_rate / 10


def test_deep_clips_are_512_of_the_deepest(recipe):
    assert sum(recipe.test_depths[depth] for depth in recipe.deep) == 512
    assert min(recipe.deep) > max(set(recipe.test_depths) - set(recipe.deep))


def test_every_depth_has_the_clips_that_its_accuracy_is_measured_on(recipe):
    assert all(count >= recipe.num_per_depth for count in recipe.test_depths.values())


def test_world_has_the_depths_and_one_step_for_each_latent(recipe):
    world = make_world(recipe.world, **recipe.knobs)
    assert set(recipe.test_depths) <= set(world.depths)
    assert world.num_steps == recipe.num_latents


def test_processor_leaves_a_frame_the_pixels_that_were_drawn(recipe):
    height, width = make_world(recipe.world, **recipe.knobs).frame_size
    assert recipe.frame_pixels == height * width


def test_seed_and_naive_targets_change_nothing_else():
    usual, other = demo_recipe("shuffle"), demo_recipe("shuffle", seed=7, naive_targets=True)
    assert (other.seed, other.naive_targets) == (7, True)
    assert dataclasses.replace(other, seed=0, naive_targets=False) == usual


def test_recipe_can_be_kept_as_json(recipe):
    kept = json.loads(json.dumps(recipe.to_dict()))
    assert kept["trainings"]["align"] == dataclasses.asdict(recipe.trainings["align"])
    assert set(kept) == {field.name for field in dataclasses.fields(recipe)}


def test_training_asks_half_of_its_questions_without_options(recipe):
    splits = world_recipe(recipe).splits
    assert {name: split.open_share for name, split in splits.items()} == {"train": 0.5, "validation": 0.0, "test": 0.0}


@dataclass(frozen=True)
class Rolling(Bounce):
    """A world that is added."""

    name: ClassVar[str] = "rolling"
    demo: ClassVar[DemoSettings] = dataclasses.replace(Bounce.demo, depth_unit="turns", num_train=7)


def test_world_brings_its_own_settings_and_needs_no_other_place_than_the_registry(monkeypatch):
    monkeypatch.setitem(registry._CLASS_OF, "rolling", "Rolling")
    monkeypatch.setitem(sys.modules, "storm_hf.worlds.rolling", SimpleNamespace(Rolling=Rolling))
    recipe = demo_recipe("rolling", seed=2)
    assert (recipe.world, recipe.num_train, recipe.deep_clips) == ("rolling", 7, "clips with 5 or 6 turns")
    assert world_recipe(recipe).num_episodes == 7 + recipe.num_gallery + sum(recipe.test_depths.values())


@pytest.mark.parametrize("name", ["bounce", "lattice"])  # the others are also English words, or the default
def test_no_other_file_names_a_world(name):
    quoted = re.compile(rf"[\"'`]{name}[\"'`]")
    files = {str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py") if quoted.search(file.read_text())}
    assert files == {f"worlds/{name}.py", "worlds/registry.py"}


def test_unknown_world_is_named_with_those_that_are_known():
    with pytest.raises(ConfigurationError, match="shuffle, bounce, order, lattice but got 'chess'"):
        demo_recipe("chess")


@pytest.mark.parametrize("world", WORLD_NAMES)
def test_language_model_learns_the_same_world_with_fewer_tests_and_rates_of_its_own(world):
    tiny, pretrained = demo_recipe(world), demo_recipe(world, backbone="smollm2")
    same = ("knobs", "deep", "whitening_rank", "target_layout", "num_latents", "frame_pixels", "num_train")
    assert all(getattr(tiny, name) == getattr(pretrained, name) for name in same)
    assert pretrained.test_depths.keys() == tiny.test_depths.keys()
    assert sum(pretrained.test_depths.values()) < sum(tiny.test_depths.values())
    variants = demo_variants(pretrained)
    base, storm = variants["base"], variants["storm"]
    assert base.settings["vision_learning_rate"] > base.training.learning_rate
    assert storm.settings["projector_learning_rate"] > storm.training.learning_rate
    assert "projector_learning_rate" not in demo_variants(tiny)["storm"].settings


def test_backbone_that_is_not_known_is_refused():
    with pytest.raises(ConfigurationError, match="Expected a backbone of tiny, smollm2 but got 'llama'"):
        demo_recipe(backbone="llama")
