"""The environment that the Makefile builds: its pins agree with the project, and torchvision imports in it."""

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


ROOT = Path(__file__).parents[1]
SHIM = ROOT / "tools" / "torchvision_operators.py"


def run_python(code: str) -> str:
    """Run code in a new interpreter of this environment and return what it prints."""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def requirements() -> list[Requirement]:
    """List what the project and the extras that the Makefile installs ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = ("demo", "dev", "train", "decoders", "scale")
    lines = [*project["dependencies"], *(line for extra in installed for line in extras[extra])]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "storm-hf"]


def pins() -> dict[str, str]:
    """Map each package of `constraints.txt` to its version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_tested_version_is_pinned_and_allowed_by_the_project(requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_video_processor_loads_in_a_child_process():
    code = (
        "from transformers import Qwen2VLVideoProcessor as P; print(P(cap_pixels_per_frame=True).model_input_names[0])"
    )
    assert run_python(code) == "pixel_values_videos"


def test_shim_declares_only_operators_that_did_not_load():
    code = f"""
import runpy, torch
loaded = torch.library.Library("torchvision", "DEF")
loaded.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
print(*runpy.run_path({str(SHIM)!r})["declare_missing_operators"]())
"""
    assert run_python(code) == "qnms"


def test_shim_does_not_load_torch_at_interpreter_start():
    assert run_python(f"import runpy, sys; runpy.run_path({str(SHIM)!r}); print('torch' in sys.modules)") == "False"


@pytest.fixture
def repair(monkeypatch, tmp_path):
    """Run the repair tool on an empty folder, where importing torchvision gives `errors` one after the other."""
    tool = runpy.run_path(str(ROOT / "tools" / "repair_torchvision.py"))["repair"]

    def run(*, errors, cpu_torch):
        answers = iter(errors)
        monkeypatch.setitem(tool.__globals__, "import_error", lambda package: next(answers))
        monkeypatch.setitem(tool.__globals__, "torch_is_cpu_build", lambda: cpu_torch)
        return tool(tmp_path)

    return run


def test_healthy_torchvision_is_left_alone(repair, tmp_path):
    assert "healthy" in repair(errors=[None], cpu_torch=True)
    assert list(tmp_path.iterdir()) == []


def test_cuda_torchvision_beside_cpu_torch_gets_its_operators(repair, tmp_path):
    repair(errors=["operator torchvision::nms does not exist", None], cpu_torch=True)
    module = (tmp_path / "_torchvision_operators.pth").read_text().split()[1]
    assert (tmp_path / f"{module}.py").read_text() == SHIM.read_text()


def test_wrong_torchvision_beside_cuda_torch_is_reported_and_not_hidden(repair, tmp_path):
    with pytest.raises(SystemExit, match="operator torchvision::nms does not exist"):
        repair(errors=["operator torchvision::nms does not exist"], cpu_torch=False)
    assert list(tmp_path.iterdir()) == []


def test_every_target_of_the_makefile_is_made_by_one_rule():
    lines = (ROOT / "Makefile").read_text().splitlines()
    phony = next(line.split()[1:] for line in lines if line.startswith(".PHONY:"))
    rules = [line.partition(":")[0] for line in lines if line[:1].isalpha() and ": " in line.partition("#")[0] + " "]
    assert sorted(rule for rule in rules if rule in phony) == sorted(phony)
