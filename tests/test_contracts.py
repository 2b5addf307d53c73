"""The import contracts catch what they promise to catch, tried on a package that breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command as lint; lint(['--no-logo', '--no-cache'])"


@pytest.fixture
def package(tmp_path):
    """A copy of the package whose folders are empty, beside the project's own contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folder = tmp_path / "storm_hf"
    for name in [
        "answer",
        "evaluation",
        "inputs",
        "model",
        "reinforce",
        "serving",
        "target_trajectory",
        "thought_video",
        "training",
        "worlds",
    ]:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "errors.py").touch()
    return folder


def lint(package: Path) -> str:
    """Return what import-linter says about a package."""
    return subprocess.run([sys.executable, "-c", LINT], cwd=package.parent, capture_output=True, text=True).stdout


def test_empty_package_keeps_every_contract(package):
    assert "7 kept, 0 broken" in lint(package)


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("worlds/shuffle.py", "import storm_hf.training", "Imports only go down"),
        ("model/modeling_storm.py", "import storm_hf.errors", "A checkpoint carries its own code"),
        ("answer/trainer.py", "import storm_hf.target_trajectory", "Stage II sees answers only"),
        ("reinforce/trainer.py", "import storm_hf.thought_video", "Reinforcement sees no thought video"),
        ("evaluation/harness.py", "import storm_hf.thought_video", "Inference never sees a thought video"),
        ("inputs/prompts.py", "import storm_hf.worlds", "Inference imports no training"),
        ("serving/chat.py", "import storm_hf.training", "Inference imports no training"),
    ],
)
def test_broken_contract_is_reported_by_name(package, file, line, contract):
    (package / file).write_text(line)
    assert f"{contract} BROKEN" in lint(package)


def test_contract_sees_through_a_module_in_between(package):
    (package / "training" / "collator.py").write_text("import storm_hf.thought_video")
    (package / "answer" / "collator.py").write_text("import storm_hf.training.collator")
    assert "Stage II sees answers only BROKEN" in lint(package)


def test_circle_of_modules_is_reported_even_within_a_folder_and_a_function(package):
    (package / "evaluation" / "report.py").write_text("def write():\n    import storm_hf.evaluation.page")
    (package / "evaluation" / "page.py").write_text("import storm_hf.evaluation.report")
    assert "No module imports itself by way of others BROKEN" in lint(package)


def test_folder_without_a_layer_is_reported(package):
    (package / "helpers").mkdir()
    (package / "helpers" / "__init__.py").touch()
    assert "Imports only go down BROKEN" in lint(package)
