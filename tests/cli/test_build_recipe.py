"""`storm build RECIPE` builds a data set of thoughts, and resumes one."""

from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from typer.testing import CliRunner

from storm_hf.builder import ThoughtsRecipe
from storm_hf.builder.components import gates_of, generator_of, prompts_of
from storm_hf.cli import app
from storm_hf.target_trajectory import TargetTrajectory


BUILDERS = Path(__file__).parents[2] / "datasets_builders"
RECIPES = (
    *("shuffle_tiny", "bounce_tiny", "order_tiny", "future_clips", "wan"),
    *("video_r1_chains", "nextgqa_evidence", "video_espresso_evidence"),
)


def build(*arguments):
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_what_exists(name, tmp_path):
    recipe = ThoughtsRecipe.read(BUILDERS / "recipes" / f"{name}.yaml")
    generator = generator_of(recipe, "train")
    assert generator.source in {"simulator", "future", "wan", "rendered_chain", "evidence"}
    assert prompts_of(recipe, tmp_path).shows_answer
    assert len(gates_of(recipe)) == len(recipe.gates) - ("duplicate" in recipe.gates)


@pytest.fixture
def recipe(tmp_path):
    """Write the recipe of a world with so many rows of each split."""

    def write(train, test):
        content = yaml.safe_load((BUILDERS / "recipes" / "shuffle_tiny.yaml").read_text())
        content["world"]["splits"] = {"train": {"count": train}, "test": {"depths": test}}
        content["targets"]["rank"] = 4
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_too_few_rows_end_in_one_line_that_leads_to_the_reasons(recipe, tmp_path, qwen_checkpoint):
    data = tmp_path / "data"
    result = build(recipe(1, {0: 1}), "--model", qwen_checkpoint, "--out", data)
    assert (result.exit_code, result.stdout) == (2, "")
    *_, line = result.stderr.splitlines()
    assert line.startswith("storm: Expected two rows or more of the split train")
    assert "but 1 came through" in line
    assert (data / "rejected.jsonl").exists()
    assert not (data / "manifest.json").exists()


def test_command_builds_a_world_from_its_recipe_and_names_the_next_one(recipe, tmp_path, qwen_checkpoint):
    data = tmp_path / "data"
    result = build("--out", data, recipe(6, {0: 1, 5: 2}), "--model", qwen_checkpoint)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith(f"storm: Building {data}...\n")
    assert result.stdout.startswith(f"9 rows in {data}: ")
    assert f"storm align --model_name_or_path {qwen_checkpoint} --dataset_name {data} " in result.stdout
    splits = load_dataset(str(data))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 6, "test": 3}
    assert splits["test"]["depth"][:] == [0, 5, 5]
    assert len(splits["train"][0]["states"]) == 6
    assert TargetTrajectory.load(data).num_latents == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"generator": {"simulator": {}, "future": {}}},
            "Expected one of future, folder, diffusers, rendered_chain, evidence, simulator, segments as generator",
        ),
        ({"generator": {"future": {"fps": 0}}}, "Expected a horizon that holds a frame but got 4.0 s at 0 frames"),
        ({"generator": {"folder": {"rot": "x"}}}, "The settings of the generator folder do not fit"),
        ({"gates": {"sharp": {}}}, "Expected gates among static, "),
        ({"prompts": {"template": {"colour": "red"}}}, "The settings of the template do not fit"),
        ({"encoder": {"model": "nobase"}}, "There is no model folder nobase, and no model of that name could be had"),
    ],
)
def test_mistake_in_a_component_is_told_before_a_build_begins(changes, sentence, tmp_path, qwen_checkpoint):
    content = yaml.safe_load((BUILDERS / "recipes" / "shuffle_tiny.yaml").read_text())
    content |= {"encoder": {"model": str(qwen_checkpoint)}, "output_dir": str(tmp_path / "data"), **changes}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    result = build(tmp_path / "recipe.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"storm: {sentence}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config", "shuffle_tiny"],
            "`--config` of `storm build` has become the first argument: `storm build RECIPE`.",
        ),
        (["shuffle_tiny", "--output_dir", "x"], "`--output_dir` of `storm build` has become `--out`."),
        (
            ["shuffle_tiny", "--model_name_or_path", "x"],
            "`--model_name_or_path` of `storm build` has become `--model`.",
        ),
        (["shuffel"], "There is no file shuffel. These come with storm-hf: "),
    ],
)
def test_what_is_no_build_is_told_in_one_line(arguments, sentence):
    result = build(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["shuffle_tiny", "--help"]])
def test_help_shows_how_to_build_and_the_other_commands(arguments):
    result = build(*arguments)
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ("--workers", "storm build status", "storm build retry"))


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_tiny")])
def test_recipe_of_a_world_has_as_many_latents_as_steps_and_depths_that_exist(name):
    recipe = ThoughtsRecipe.read(BUILDERS / "recipes" / f"{name}.yaml")
    for split, settings in recipe.world.splits.items():
        assert set(settings.depths or {}) <= set(recipe.world.world_of(split).depths)
    assert recipe.world.world_of("train").num_steps == recipe.targets.num_latents
