import json
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from storm_hf.errors import DependencyError, StormError
from storm_hf.optional import EXTRA_OF, install_command, require


ROOT = Path(__file__).parents[1]


def test_missing_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DependencyError, match="`peft` is missing") as caught:
        require("peft")
    assert str(caught.value).endswith(install_command("train"))
    assert isinstance(caught.value, StormError)
    assert isinstance(caught.value, ImportError)


@pytest.fixture
def installed_from(monkeypatch, tmp_path):
    """Pretend that the package was installed from somewhere."""

    def install(origin):
        information = tmp_path / "storm_hf-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Name: storm-hf\nVersion: 1\n")
        if origin is not None:
            (information / "direct_url.json").write_text(json.dumps(origin))
        monkeypatch.setattr(sys, "path", [str(tmp_path)])

    return install


@pytest.mark.parametrize(("package", "extra"), [("gradio", "app"), ("lmms_eval", "evaluation")])
@pytest.mark.parametrize("is_clone", [True, False], ids=["clone", "index"])
def test_package_that_needs_its_own_environment_says_how_to_get_one(
    installed_from, monkeypatch, tmp_path, package, extra, is_clone
):
    (tmp_path / "Makefile").touch()
    installed_from({"url": tmp_path.as_uri(), "dir_info": {"editable": True}} if is_clone else None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match="It needs an environment of its own") as caught:
        require(package)
    if is_clone:
        assert f"run `make {extra}` in {tmp_path}, then `{tmp_path}/.venv-{extra}/bin/storm` in place" in str(
            caught.value
        )
        targets = (ROOT / "Makefile").read_text()
        assert f"\n{extra}:" in targets
        assert f".venv-{extra}/" in targets
    else:
        assert str(caught.value).endswith(f"pip install 'storm-hf[{extra}]'")


def test_decoder_without_its_libraries_names_the_package_of_the_system(monkeypatch, tmp_path):
    (tmp_path / "torchcodec.py").write_text("raise RuntimeError('Could not load libtorchcodec. Likely causes: ...')")
    monkeypatch.delitem(sys.modules, "torchcodec", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DependencyError, match=r"\(Could not load libtorchcodec\)\. Install FFmpeg.*apt install ffmpeg"
    ):
        require("torchcodec")


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'storm-hf[app]'"),
        ({"url": "https://some.where/storm_hf.whl", "archive_info": {}}, "pip install 'storm-hf[app]'"),
        ({"url": "file:///home/me/storm-hf", "dir_info": {}}, "pip install '/home/me/storm-hf[app]'"),
        (
            {"url": "file:///home/my%20own/storm-hf", "dir_info": {"editable": True}},
            "pip install -e '/home/my own/storm-hf[app]'",
        ),
    ],
    ids=["index", "archive", "folder", "editable"],
)
def test_extra_is_installed_from_where_the_package_came(origin, command, installed_from):
    installed_from(origin)
    assert install_command("app") == command


def test_extra_is_named_as_on_an_index_where_nothing_was_installed(monkeypatch, tmp_path):
    """As with the sources on `PYTHONPATH`."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install_command("app") == "pip install 'storm-hf[app]'"


def test_package_whose_library_does_not_load_says_why(monkeypatch, tmp_path):
    (tmp_path / "gradio.py").write_text("raise OSError('libmissing.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match=r"libmissing\.so\.1"):
        require("gradio")


def test_package_with_a_missing_dependency_names_the_dependency(monkeypatch, tmp_path):
    (tmp_path / "gradio.py").write_text("import a_dependency_of_gradio")
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match="`a_dependency_of_gradio`"):
        require("gradio")


def test_submodule_of_an_installed_package_is_returned():
    assert require("pyarrow.parquet").__name__ == "pyarrow.parquet"


@pytest.mark.parametrize(("package", "extra"), EXTRA_OF.items())
def test_extra_brings_the_package_it_is_named_for(package, extra):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {Requirement(line).name.replace("-", "_") for line in extras[extra]}
    assert package in brought
