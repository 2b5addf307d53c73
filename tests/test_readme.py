"""Claims of the README beside its code, which tests/docs runs: extras, folders, figures of `storm plan`, the film."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from storm_hf.cli import app


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLANNED = re.findall(r"^\|.*\| ([\d.]+) \| ([\d.]+) h \| `storm (plan .*?)` \|$", README, flags=re.MULTILINE)
NUM_CLIPS = 5_000


def test_film_is_small_and_moves():
    film = ROOT / re.search(r"!\[.*?\]\((.*?)\)", README)[1]
    assert film.stat().st_size < 2**20
    with Image.open(film) as moving:
        assert moving.n_frames > 1


def test_table_of_extras_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = re.findall(r"^\| `([a-z]+)` \|", README, flags=re.MULTILINE)
    assert set(told) == set(project["optional-dependencies"]) - {"browser", "upstream"}  # each for one target of make


def test_every_path_that_it_names_exists():
    named = re.findall(r"(?:`|\()((?:src|trainers|docs|benchmarks|tools|datasets_builders)/[\w./-]*)(?:`|\))", README)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_tree_names_every_folder():
    tree = README.partition("## Where things are")[2].partition("\n## ")[0]
    told = set(re.findall(r"([\w]+)/(?=\s)", tree))
    package = {path.name for path in (ROOT / "src" / "storm_hf").iterdir() if (path / "__init__.py").is_file()}
    assert package - told == set()
    assert {name for name in told if not any(ROOT.glob(name)) and not any((ROOT / "src").rglob(name))} == set()


@pytest.mark.parametrize(("gibibytes", "hours", "command"), PLANNED, ids=[command for *_, command in PLANNED])
def test_memory_and_hours_are_what_the_plan_says(gibibytes, hours, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, [*shlex.split(command), "--json"])
    plan = json.loads(result.stdout)
    recipe = (ROOT / plan["recipe"]).read_text()
    rows = plan["num_processes"]
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        rows *= int(re.search(rf"^{name}: (\d+)", recipe, flags=re.MULTILINE)[1])
    assert gibibytes == f"{plan['peak_bytes'] / 2**30:.1f}"
    assert hours == f"{NUM_CLIPS / rows * plan['step_seconds'] / 3600:.1f}"


def test_there_are_plans():
    assert len(PLANNED) == 3
