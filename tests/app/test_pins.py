"""The environment of `make test-browser`: its pins can be read by pip, agree with the project, and leave nothing out."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


ROOT = Path(__file__).parents[2]
UNPINNED = {"pip", "setuptools", "storm-hf"}  # what a new environment has, and what is under test


def pins() -> dict[str, str]:
    """Map each package of `constraints-app.txt` to its version."""
    lines = (ROOT / "constraints-app.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in parsed}


def requirements() -> list[Requirement]:
    """List what the extras of the page and of its test ask for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [Requirement(line) for line in (*extras["app"], *extras["browser"])]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_tested_version_is_pinned_and_allowed_by_the_project(requirement):
    assert requirement.specifier.contains(pins()[requirement.name])


@pytest.mark.browser
def test_everything_that_is_installed_is_pinned():
    installed = {
        canonicalize_name(one.name): Version(one.version).public for one in importlib.metadata.distributions()
    }
    assert {name: version for name, version in installed.items() if name not in UNPINNED} == pins()
