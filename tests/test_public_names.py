import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import storm_hf


ROOT = Path(__file__).parents[1]
FOLDERS = [f"storm_hf.{info.name}" for info in pkgutil.iter_modules(storm_hf.__path__) if info.ispkg]


def isort_key(name: str) -> tuple[int, str]:
    """Order names as ruff sorts `__all__`: constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def test_package_offers_the_names_that_users_rely_on():
    assert {
        "StormAlignConfig",
        "StormAlignTrainer",
        "StormAnswerConfig",
        "StormAnswerTrainer",
        "StormConfig",
        "StormForConditionalGeneration",
    } <= set(storm_hf.__all__)


@pytest.mark.parametrize("module_name", ["storm_hf", "storm_hf.errors", *FOLDERS])
def test_public_names_are_sorted_importable_and_documented(module_name):
    module = importlib.import_module(module_name)
    names = list(getattr(module, "__all__", []))
    assert names == sorted(set(names), key=isort_key)
    values = {name: getattr(module, name) for name in names}
    assert [name for name, value in values.items() if inspect.isclass(value) and not value.__doc__] == []
    assert [name for name, value in values.items() if inspect.isroutine(value) and not value.__doc__] == []


SNIPPET = """
from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerTrainer, TargetTrajectory, load_rows

trainer = StormAlignTrainer("name", StormAlignConfig("runs"), train_dataset=load_rows("data")["train"])
reveal_type(trainer.target_trajectory)
StormAnswerTrainer(modle="name")
"""


@pytest.mark.slow
def test_type_checker_sees_the_classes_that_load_on_first_use(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPET)
    options = ["--config-file", str(ROOT / "pyproject.toml")]  # with the cache of `make lint`
    command = [sys.executable, "-m", "mypy", *options, str(tmp_path / "snippet.py")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    lines = [line for line in found.splitlines() if line.startswith(str(tmp_path)) or line.startswith("snippet")]
    assert any("TargetTrajectory | None" in line for line in lines), found
    assert any('Unexpected keyword argument "modle" for "StormAnswerTrainer"' in line for line in lines), found
    assert not any("not callable" in line or "has no attribute" in line for line in lines), found


@pytest.mark.parametrize("folder", ["", ".builder", ".model", ".target_trajectory", ".thought_video"])
def test_names_for_type_checkers_are_those_that_load_on_first_use(folder):
    package = importlib.import_module(f"storm_hf{folder}")
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert imported == package._MODULE_OF


@pytest.mark.parametrize(
    "script",
    sorted(set((ROOT / "trainers").glob("*.py")) - {ROOT / "trainers" / "run.py"}),
    ids=lambda script: script.stem,
)
def test_scripts_of_a_stage_use_public_names_only(script):
    modules = re.findall(r"^from (storm_hf\S*) import", script.read_text(), flags=re.MULTILINE)
    assert modules == ["storm_hf"]


def test_dir_shows_the_names_that_load_on_first_use():
    assert set(storm_hf.__all__) <= set(dir(storm_hf))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        storm_hf.no_such_name  # noqa: B018


def test_package_tells_type_checkers_that_it_is_typed():
    assert (Path(storm_hf.__file__).parent / "py.typed").exists()


def test_public_names_are_those_of_the_list():
    modules = {name: importlib.import_module(name) for name in ["storm_hf", *FOLDERS]}
    public = [f"{name}.{member}" for name, module in modules.items() for member in getattr(module, "__all__", [])]
    listed = (Path(__file__).parent / "public_names.txt").read_text().split()
    assert sorted(public) == listed, (
        "A name that users rely on was added or taken away: say so in CHANGELOG.md, and list it."
    )
