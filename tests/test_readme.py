"""Claims of the README beside its code, which tests/docs runs: figures, extras, folders, the film."""

import copy
import json
import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
FIGURES = runpy.run_path(str(ROOT / "tools" / "readme.py"))
RECORDS = json.loads((ROOT / "benchmarks" / "records.json").read_text(encoding="utf-8"))
PLANS = RECORDS["plans"]["rows"]
MEASURED = {name: record for name, record in RECORDS.items() if name != "plans"}


def numbers(content: object) -> Iterator[float]:
    """Yield the numbers in nested dicts and lists."""
    if isinstance(content, int | float):
        yield content
    for inner in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from numbers(inner)


def test_figures_are_those_of_the_records():
    assert FIGURES["written"](README, RECORDS) == README, "run: python tools/readme.py"


def test_every_block_of_figures_is_in_it_once():
    assert sorted(re.findall(r"<!-- figures: (\w+) -->", README)) == sorted(FIGURES["BLOCKS"])


def test_another_record_writes_another_readme():
    records = copy.deepcopy(RECORDS)
    records["bounce"]["figures"]["storm"] = 0.5
    (changed,) = set(FIGURES["written"](README, records).splitlines()) - set(README.splitlines())
    assert changed.startswith("| `bounce`")
    assert "| 50.0 |" in changed


@pytest.mark.parametrize("name", MEASURED)
def test_record_is_in_the_results_under_its_command(name):
    record = MEASURED[name]
    assert record["command"] in RESULTS
    assert sorted(record) == ["command", "date", "figures", "seeds"]
    shown = {float(number) for number in re.findall(r"(?<![\w.])(?:\d+)?\.?\d+(?![\w])", RESULTS)}
    assert [number for number in numbers(record["figures"]) if number not in shown] == []


def test_film_is_small_and_moves():
    film = ROOT / re.search(r"!\[.*?\]\((.*?)\)", README)[1]
    assert film.stat().st_size < 2**20
    with Image.open(film) as moving:
        assert moving.n_frames > 1


def test_table_of_extras_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    install = README.partition("## Install")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([a-z]+)` \|", install, flags=re.MULTILINE)
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


@pytest.mark.parametrize("plan", PLANS, ids=[plan["command"] for plan in PLANS])
def test_memory_and_hours_are_what_the_plan_says(plan, monkeypatch):
    monkeypatch.chdir(ROOT)
    planned = FIGURES["planned"](plan["command"], RECORDS["plans"]["clips"])
    assert {name: plan[name] for name in planned} == planned, "run: python tools/readme.py --plan"


def test_hours_are_those_of_all_steps_of_the_recipe(monkeypatch):
    monkeypatch.chdir(ROOT)
    ten, one = (FIGURES["planned"](PLANS[0]["command"], clips)["hours"] for clips in (50_000, 5_000))
    assert ten == pytest.approx(10 * one, abs=0.5)
    assert one > 0


def test_there_are_plans():
    assert len(PLANS) == 3


def test_record_of_a_run_is_read_from_what_the_demo_writes(tmp_path):
    interventions = dict.fromkeys(FIGURES["INTERVENTIONS"], 0.25)
    for place, name in enumerate(("storm", *FIGURES["BASELINES"])):
        results = {"accuracy": 0.5 + place / 10, "forward_passes": 8.0, "interventions": interventions}
        (tmp_path / "arms" / name).mkdir(parents=True)
        (tmp_path / "arms" / name / "results.json").write_text(json.dumps({**results, "open": results}))
    (tmp_path / "report.json").write_text(json.dumps({"seed": 3}))
    record = FIGURES["demo_record"](tmp_path)
    assert sorted(record) == sorted(RECORDS["demo"])
    assert record["seeds"] == [3]
    for form in FIGURES["FORMS"]:
        assert sorted(record["figures"][form]) == sorted(RECORDS["demo"]["figures"][form])
    assert record["figures"]["with_options"]["storm"] == 0.5
