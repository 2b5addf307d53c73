import runpy
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from storm_hf.builder import ThoughtsRecipe
from storm_hf.builder.choice import gates_of, generator_of, prompts_of
from storm_hf.target_trajectory import TargetTrajectory


BUILDERS = Path(__file__).parents[2] / "datasets_builders"
RECIPES = ("worlds", "future_clips", "wan")


def build(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["storm_thoughts.py", *map(str, arguments)])
    runpy.run_path(str(BUILDERS / "storm_thoughts.py"), run_name="__main__")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_what_exists(name, tmp_path):
    recipe = ThoughtsRecipe.read(BUILDERS / "recipes" / f"{name}.yaml")
    generator = generator_of(recipe, "train")
    assert generator.source in {"simulator", "future", "wan"}
    assert prompts_of(recipe, tmp_path).shows_answer
    assert len(gates_of(recipe)) == len(recipe.gates) - ("duplicate" in recipe.gates)


def test_too_few_rows_end_in_one_line_that_leads_to_the_reasons(tmp_path, qwen_checkpoint, monkeypatch, capsys):
    content = yaml.safe_load((BUILDERS / "recipes" / "worlds.yaml").read_text())
    content["world"]["splits"] = {"train": {"count": 1}, "test": {"depths": {0: 1}}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    data = tmp_path / "data"
    with pytest.raises(SystemExit) as ended:
        build(monkeypatch, "--config", recipe, "--model_name_or_path", qwen_checkpoint, "--output_dir", data)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("storm_thoughts.py: Expected two rows or more of the split train")
    assert "but 1 came through" in line
    assert (data / "rejected.jsonl").exists()
    assert not (data / "manifest.json").exists()


def test_script_builds_a_world_from_its_recipe(tmp_path, qwen_checkpoint, monkeypatch):
    content = yaml.safe_load((BUILDERS / "recipes" / "worlds.yaml").read_text())
    content["world"]["splits"] = {"train": {"count": 6}, "test": {"depths": {0: 1, 5: 2}}}
    content["targets"]["rank"] = 4
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    build(monkeypatch, "--config", recipe, "--model_name_or_path", qwen_checkpoint, "--output_dir", tmp_path / "data")
    splits = load_dataset(str(tmp_path / "data"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 6, "test": 3}
    assert splits["test"]["depth"][:] == [0, 5, 5]
    assert len(splits["train"][0]["states"]) == 6
    assert TargetTrajectory.load(tmp_path / "data").num_latents == 6
