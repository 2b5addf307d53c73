"""The files of `model/` are copied beside the weights, so they may import the core and each other, and nothing else."""

import ast
import sys
from pathlib import Path

import pytest

import storm_hf


MODEL = Path(storm_hf.__file__).parent / "model"
FILES = sorted(MODEL.glob("*_storm.py"))
CORE = {"torch", "transformers", "huggingface_hub", *sys.stdlib_module_names}


def forbidden_imports(source: str) -> list[str]:
    """List the imports of a file that a checkpoint could not carry."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] not in CORE]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.partition(".")[0] not in CORE:
            found.append(node.module)
        elif isinstance(node, ast.ImportFrom) and node.level > 0 and not is_sibling(node):
            found.append("." * node.level + (node.module or ""))
    return found


def is_sibling(node: ast.ImportFrom) -> bool:
    """Tell whether a relative import is `from .name_storm import ...` of a file that exists."""
    return node.level == 1 and node.module is not None and (MODEL / f"{node.module}.py").exists()


def conditional_imports(source: str) -> list[int]:
    """List the lines of imports that stand inside a function or a condition: the loader would require them all."""
    tree = ast.parse(source)
    nested = [node for top in tree.body for node in ast.walk(top) if node is not top]
    return [node.lineno for node in nested if isinstance(node, ast.Import | ast.ImportFrom)]


def test_there_are_model_files():
    assert {"configuration_storm.py", "modeling_storm.py", "rollout_storm.py"} <= {file.name for file in FILES}


def test_model_folder_has_only_files_that_ship():
    assert {file.name for file in MODEL.glob("*.py")} == {"__init__.py", *(file.name for file in FILES)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_model_file_imports_only_siblings_and_core(file):
    assert forbidden_imports(file.read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_model_file_imports_at_the_top_only(file):
    assert conditional_imports(file.read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_model_file_does_not_ask_for_the_class_of_a_storm_config(file):
    """A checkpoint's own StormConfig is another class than the installed one: its `model_type` is compared."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    asked = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "isinstance"]
    assert not [call for call in asked if "StormConfig" in call]


@pytest.mark.parametrize(
    "line",
    [
        "import gradio",
        "from storm_hf.errors import StormError",
        "from . import rollout_storm",
        "from ..align import objective",
        "from .no_such_file import name",
        "def f():\n    import numpy as np",
    ],
)
def test_check_finds_imports_that_a_checkpoint_cannot_carry(line):
    assert forbidden_imports(line) != []
