"""Scripts and recipes are found by their names, in a clone and beside the package."""

from pathlib import Path

import pytest

from storm_hf.cli import shipped as module
from storm_hf.cli.shipped import ACCELERATE_CONFIGS, BUILD_RECIPES, TRAIN_RECIPES, named_file, names_in, shipped
from storm_hf.errors import ConfigurationError


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", [ACCELERATE_CONFIGS, BUILD_RECIPES, TRAIN_RECIPES])
def test_every_file_of_the_clone_goes_by_its_name(folder):
    assert names_in(folder) == sorted(file.stem for file in (ROOT / folder).glob("*.yaml"))
    assert all(named_file(name, folder) == ROOT / folder / f"{name}.yaml" for name in names_in(folder))


def test_file_of_a_user_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wan").write_text("mine: true")
    assert named_file("wan", BUILD_RECIPES) == Path("wan")


@pytest.mark.parametrize("given", ["wna", "no/wan", "../recipes/wan", ""])
def test_name_that_is_none_is_refused_with_those_there_are(given):
    with pytest.raises(ConfigurationError, match="These come with storm-hf: .*future_clips.*wan"):
        named_file(given, BUILD_RECIPES)


def test_installed_files_come_before_those_of_a_clone(tmp_path, monkeypatch):
    package = tmp_path / "storm_hf"
    (package / "trainers").mkdir(parents=True)
    (package / "trainers" / "align.py").touch()
    monkeypatch.setattr(module.storm_hf, "__file__", str(package / "__init__.py"))
    assert shipped("trainers/align.py") == package / "trainers" / "align.py"
