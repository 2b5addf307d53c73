"""A version of transformers that the code was not tested with is named in one sentence when the code is loaded."""

import re
import tomllib
from pathlib import Path

import pytest
import transformers

from storm_hf.errors import DependencyError, StormError
from storm_hf.model.configuration_storm import NEWEST, OLDEST, check_transformers


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("version", ["4.57.1", "5.9.0", "5.23.0", "5.23.9"])
def test_older_version_is_refused_with_the_command_that_helps(version):
    with pytest.raises(DependencyError, match=re.escape(f"got {version}. Run `pip install")) as refusal:
        check_transformers(version)
    assert isinstance(refusal.value, StormError)
    assert isinstance(refusal.value, ImportError)


@pytest.mark.parametrize("version", ["5.25.0", "5.25.0.dev0", "5.100.0", "6.0.0rc1"])
def test_newer_version_is_named_in_a_warning(version, caplog):
    check_transformers(version)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"this is {version}" in caplog.text


@pytest.mark.parametrize("version", ["5.24.0", "5.24.7", "5.24.1.dev0", transformers.__version__])
def test_tested_version_loads_without_a_word(version, caplog):
    check_transformers(version)
    assert not caplog.records


def test_pip_installs_only_versions_that_were_tested():
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = re.search(r"transformers>=(\d+)\.(\d+),<(\d+)\.(\d+)", " ".join(lines))
    oldest, beyond = tuple(map(int, found.groups()[:2])), tuple(map(int, found.groups()[2:]))
    assert oldest == OLDEST
    assert beyond == (NEWEST[0], NEWEST[1] + 1)
