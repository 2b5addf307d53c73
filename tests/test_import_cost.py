import subprocess
import sys


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


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a new interpreter has loaded once it ran a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return {name.partition(".")[0] for name in child.stdout.split()}


def test_import_storm_hf_loads_no_optional_package():
    loaded = modules_after("import storm_hf")
    assert "storm_hf" in loaded
    assert not loaded & OPTIONAL


def test_command_line_entry_loads_no_training_package():
    loaded = modules_after("from storm_hf.cli import main")
    assert not loaded & (OPTIONAL - {"typer"})
