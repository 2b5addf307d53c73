import ast
import subprocess
import sys
from pathlib import Path

import pytest

import storm_hf


PACKAGE = Path(storm_hf.__file__).parent
OPTIONAL = {
    "datasets",
    "decord",
    "deepspeed",
    "diffusers",
    "gradio",
    "lmms_eval",
    "peft",
    "torchcodec",
    "trl",
    "typer",
}
HEAVY = {"torch", "torchvision", "transformers", "accelerate", "huggingface_hub", "numpy", "av", "PIL", *OPTIONAL} - {
    "typer"
}
REGISTERING = ("storm_hf.model", "storm_hf.checkpoints.loading")  # the second imports the first
RUN = """
import sys
sys.argv = ["storm", *{arguments!r}]
from storm_command import main
try:
    main()
except SystemExit:
    pass
"""


def modules_after(code: str) -> set[str]:
    """Run a program in a new interpreter and return the top-level modules that it has loaded at its end."""
    report = "\nimport sys\nprint()\nprint(*sys.modules)"

    command = [sys.executable, "-c", code + report]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return {name.partition(".")[0] for name in child.stdout.splitlines()[-1].split()}


def uses_auto_classes(tree: ast.Module) -> bool:
    """Whether a module imports an Auto class of transformers."""
    return any(
        alias.name.startswith("Auto")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "transformers"
        for alias in node.names
    )


def test_import_storm_hf_loads_no_optional_package():
    loaded = modules_after("import storm_hf")
    assert "storm_hf" in loaded
    assert not loaded & OPTIONAL


def test_command_line_entry_loads_no_training_package():
    loaded = modules_after("from storm_hf.cli import main")
    assert not loaded & (OPTIONAL - {"typer"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["env"],
        ["env", "--json"],
        ["align", "--help"],
        ["run", "--help"],
        ["build", "--help"],
        ["build", "status", "no-such-folder"],
        ["completion"],
        ["ask", "--help"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_command_that_needs_no_model_loads_no_heavy_package(arguments):
    loaded = modules_after(RUN.format(arguments=arguments))
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_command_that_loads_a_model_knows_storm():
    loaded = modules_after(
        "import storm_command\n"
        "from storm_hf.model import StormConfig\n"
        "from transformers import AutoConfig\n"
        "assert type(AutoConfig.for_model('storm')) is StormConfig"
    )
    assert "transformers" in loaded


def test_module_that_uses_the_auto_classes_registers_storm():
    trees = {file: ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py") if "templates" not in file.parts}
    users = {file for file, tree in trees.items() if uses_auto_classes(tree) and file.parent.name != "model"}
    assert users
    forgetful = [
        file.name
        for file in users
        if not any(isinstance(node, ast.ImportFrom) and node.module in REGISTERING for node in trees[file].body)
    ]
    assert forgetful == []
