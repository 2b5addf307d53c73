import runpy
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from storm_hf.target_trajectory import TargetSettings, TargetTrajectory
from storm_hf.thought_video import WorldRecipe


BUILDERS = Path(__file__).parents[2] / "datasets_builders"
RECIPES = sorted(BUILDERS.glob("recipes/*_tiny.yaml"))


def test_script_builds_a_data_set_from_a_recipe(tmp_path, qwen_checkpoint, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    content = {
        "world": "order",
        "splits": {"train": {"count": 6}, "test": {"count": 2}},
        "targets": {"num_latents": 6},
    }
    recipe.write_text(yaml.safe_dump(content))
    arguments = ["--config", recipe, "--model_name_or_path", qwen_checkpoint, "--output_dir", tmp_path / "data"]
    monkeypatch.setattr(sys, "argv", ["storm_worlds.py", *map(str, arguments), "--rank", "4", "--seed", "3"])
    runpy.run_path(str(BUILDERS / "storm_worlds.py"), run_name="__main__")
    train = load_dataset(str(tmp_path / "data"), split="train")
    assert train["seed"][:] == list(range(30_000_000, 30_000_006))
    assert TargetTrajectory.load(tmp_path / "data").statistics.rank == 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_name_worlds_that_exist_and_steps_that_fit(path):
    content = yaml.safe_load(path.read_text())
    recipe, settings = WorldRecipe.from_dict(content), TargetSettings(**content["targets"])
    for name, split in recipe.splits.items():
        world = recipe.world_of(name)
        assert set(split.depths or {}) <= set(world.depths)
    assert recipe.world_of("train").num_steps == settings.num_latents
