"""Claims at the head of each recipe: commands of files that exist, and memory as `storm plan` prints it."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from tests.planning.measured import each_step_is_measured_once  # noqa: F401
from typer.testing import CliRunner

from storm_hf.cli import app


ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "trainers" / "recipes").glob("*.yaml"))
LARGE = [recipe for recipe in RECIPES if not recipe.stem.startswith("worlds_tiny")]
FILES = re.compile(r"\b(?:trainers|datasets_builders|benchmarks)/[\w./]+\.\w+")
PLAN = re.compile(r"^# +storm (plan .+?) +# (\S+ GiB per process)$", re.MULTILINE)


def head_of(recipe):
    lines = recipe.read_text().splitlines()
    return "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def named(recipes):
    return pytest.mark.parametrize("recipe", recipes, ids=lambda recipe: recipe.stem)


@named(RECIPES)
def test_head_names_files_that_exist(recipe):
    files = set(FILES.findall(head_of(recipe)))
    assert f"trainers/recipes/{recipe.name}" in files
    assert [file for file in files if not (ROOT / file).is_file()] == []


@named(LARGE)
def test_head_says_how_to_launch_on_one_gpu_eight_and_two_nodes(recipe):
    head = head_of(recipe)
    assert [place for place in ("1 GPU", "8 GPUs", "2 nodes") if place not in head] == []
    assert "trainers/slurm/two_nodes.sbatch" in head


@named(LARGE)
def test_memory_in_the_head_is_what_the_command_prints(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    promised = PLAN.findall(head_of(recipe))
    assert promised
    for command, figure in promised:
        assert f"Peak:     {figure}" in CliRunner().invoke(app, shlex.split(command)).stdout


def test_recipe_of_a_24_gb_gpu_fits_it():
    for stage in ("align", "answer", "grpo"):
        recipe = ROOT / "trainers" / "recipes" / f"lora_24gb_{stage}.yaml"
        figures = dict(PLAN.findall(head_of(recipe)))
        assert float(figures[f"plan trainers/recipes/{recipe.name}"].split()[0]) < 20, "with room for the driver"


@pytest.mark.parametrize("name", ["qwen3vl_8b", "lora_24gb", "thought_7b", "worlds_tiny"])
def test_stage_ii_goes_on_from_stage_i_at_a_tenth_of_its_rate(name):
    align, answer = (
        yaml.safe_load((ROOT / "trainers" / "recipes" / f"{name}_{stage}.yaml").read_text())
        for stage in ("align", "answer")
    )
    assert answer["model_name_or_path"] == align["output_dir"]
    assert answer["learning_rate"] == pytest.approx(align["learning_rate"] / 10)


def test_every_unknown_of_the_paper_has_a_reason():
    for stage in ("align", "answer"):
        text = (ROOT / "trainers" / "recipes" / f"paper_7b_{stage}.yaml").read_text()
        unknown = [line for line in text.splitlines() if "# unknown" in line]
        assert len(unknown) >= 7
        assert [line for line in unknown if len(line.partition("# unknown")[2].split()) < 4] == []
