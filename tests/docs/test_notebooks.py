"""Every cell of every notebook runs, on a tiny checkpoint; what lies in the file is what a reader sees."""

import ast
import json
import re

import pytest
from tests.docs.pages import ROOT


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 100_000  # bytes: pictures included


def named(notebook):
    return notebook.stem


def code_of(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_two():
    assert [notebook.stem for notebook in NOTEBOOKS] == ["do_the_latents_matter", "first_answer"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=named)
def test_notebook_is_plain_python_with_outputs_that_name_no_place(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["metadata"]["language_info"]["name"]) == (4, "python")
    for cell in code_of(notebook):
        ast.parse(cell)
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", ())]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    texts = ["".join(output.get("text", "")) for output in outputs]
    assert [text for text in texts if re.search(r"(?<!\S)/\w+/", text)] == []
    assert notebook.stat().st_size < LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=named)
@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_notebook_runs(notebook, folder, reader, warm_python):
    """Outside of Jupyter, since no cell needs it; the last line of a cell is what Jupyter would show."""
    place = reader / folder
    place.mkdir(exist_ok=True)
    finished = warm_python.run("\n".join(code_of(notebook)), place)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout
