import json
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli.env import CORE_PACKAGES, VIDEO_BACKENDS, health_of, video_backends
from storm_hf.optional import EXTRA_OF


@pytest.fixture(scope="module")
def environment():
    return json.loads(CliRunner().invoke(app, ["env", "--check", "--json"]).stdout)


def test_every_package_has_its_version_or_is_not_installed(environment):
    packages = environment["packages"]
    assert packages.keys() == {"storm-hf", *CORE_PACKAGES, *EXTRA_OF}
    assert packages["transformers"] == version("transformers")


def test_package_that_is_not_there_is_not_installed(monkeypatch):
    monkeypatch.setitem(EXTRA_OF, "no_such_package", "train")
    lines = CliRunner().invoke(app, ["env"]).stdout.splitlines()
    assert ["no_such_package", "not", "installed"] in [line.split() for line in lines]


def test_plain_text_says_the_same_as_json(environment):
    lines = CliRunner().invoke(app, ["env", "--check"]).stdout.splitlines()
    for section, values in environment.items():
        assert section in lines
        assert all(
            any(line.split() == [*name.split(), *value.split()] for line in lines) for name, value in values.items()
        )


def test_nothing_is_loaded_unless_the_check_is_asked_for(monkeypatch):
    monkeypatch.setattr("storm_hf.cli.env.health", lambda: 1 / 0)
    result = CliRunner().invoke(app, ["env"])
    assert result.exit_code == 0
    assert "health" not in result.stdout
    assert "`storm env --check`" in result.stderr


def test_machine_is_described(environment):
    assert environment["system"]["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert int(environment["system"]["cores"]) >= 1


def test_video_backend_counts_as_working_only_if_it_reads_a_clip(monkeypatch):
    backends = dict(video_backends())
    assert backends.keys() == {f"video: {backend}" for backend in VIDEO_BACKENDS}
    assert backends["video: pyav"] == "works"
    monkeypatch.setitem(sys.modules, "decord", None)
    assert "`decord` is missing" in dict(video_backends())["video: decord"]


def test_package_that_does_not_load_is_told_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    assert health_of("broken_package") == "does not load: operator torchvision::nms does not exist"
    assert health_of("torchvision") == "works"
