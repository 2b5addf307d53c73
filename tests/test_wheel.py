"""The built wheel works without the clone it came from."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "storm_hf"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("storm_hf-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel installed in it, beside the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def pip(*arguments: object) -> None:
    """Run pip, and show what it said if it fails."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr


def run(installed: Path, *arguments: object) -> str:
    """Run this interpreter outside of the clone, with the installed wheel before everything else."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *map(str, arguments)]
    child = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_wheel_carries_every_file_of_the_package(wheel):
    tracked = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        missing = {str(path.relative_to(ROOT / "src")) for path in tracked} - set(archive.namelist())
    assert missing == set()


def test_wheel_carries_every_script_and_recipe(wheel):
    folders = ("trainers", "datasets_builders")
    tracked = {
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".sbatch")
    }
    with zipfile.ZipFile(wheel) as archive:
        missing = {f"storm_hf/{path.relative_to(ROOT)}" for path in tracked} - set(archive.namelist())
    assert missing == set()


def test_wheel_carries_its_licence_and_no_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"storm_hf", "storm_command.py"}


def test_package_imports_from_the_wheel(installed):
    where = run(installed, "-c", "import storm_hf; print(storm_hf.__file__)").strip()
    assert Path(where).is_relative_to(installed)


def test_storm_command_shows_its_help(installed):
    assert "demo" in run(installed, installed / "bin" / "storm", "--help")


def test_installed_command_finds_the_recipes_of_the_wheel(installed):
    code = "from storm_hf.cli.shipped import *; print(named_file('lora_24gb_align', TRAIN_RECIPES), shipped('trainers/align.py'))"
    for file in run(installed, "-c", code).split():
        assert Path(file).is_relative_to(installed / "storm_hf" / "trainers")
        assert Path(file).is_file()
