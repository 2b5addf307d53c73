"""Every code block of the README and the pages runs, in a folder that looks like a clone after `make demo`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.docs.pages import LANGUAGES, blocks
from tests.serving.conftest import wait_for_address

from storm_hf.annotations import SourceConfig, load_layout, read_annotations
from storm_hf.annotations.record import Annotation
from storm_hf.builder import ThoughtsRecipe
from storm_hf.curriculum.recipe import RunRecipe
from storm_hf.hub.card_metadata import CITATION


TRAIN_RECIPES = Path(__file__).parents[2] / "trainers" / "recipes"
SERVER = "http://localhost:8000/"
ALONE = [block for block in blocks("python") if SERVER not in block.text]
ASKING_A_SERVER = [block for block in blocks("python") if SERVER in block.text]


@pytest.fixture(scope="session")
def run(warm_python):
    """Run code in a process of its own."""

    def run(code, folder):
        finished = warm_python.run(code, folder)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


def test_every_block_has_a_language_that_is_tested():
    assert blocks()
    assert [
        f"{block}: {block.language or 'no language'}" for block in blocks() if block.language not in LANGUAGES
    ] == []


def test_citation_of_the_readme_is_that_of_the_cards():
    assert [f"```bibtex\n{block.text}```" for block in blocks("bibtex")] == [CITATION]


@pytest.mark.slow
@pytest.mark.parametrize("block", ALONE, ids=str)
def test_python_block_runs(block, reader, run):
    run(block.text, reader)


@pytest.mark.slow
@pytest.mark.parametrize("block", ASKING_A_SERVER, ids=str)
def test_python_block_that_asks_a_server_is_answered(block, reader, run, tmp_path):
    command = [sys.executable, "-c", "from storm_hf.cli import main; main()", "serve", "--model", "runs/demo/storm"]
    words = tmp_path / "stderr"
    with (
        words.open("w") as stderr,
        subprocess.Popen([*command, "--port", "0", "--device", "cpu"], cwd=reader, stderr=stderr) as process,
    ):
        try:
            run(block.text.replace(SERVER, wait_for_address(process, words)), reader)
        finally:
            process.terminate()


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_block_is_a_row_of_annotations(block, tmp_path):
    row = json.loads(block.text)
    (tmp_path / row["video"]).touch()
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (read,) = read_annotations(SourceConfig(path=str(tmp_path / "rows.jsonl")))
    assert isinstance(read, Annotation), read


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if "fields:" in block.text], ids=str)
def test_yaml_block_with_fields_is_a_layout(block, tmp_path):
    (tmp_path / "mine.yaml").write_text(block.text)
    assert load_layout(str(tmp_path / "mine.yaml")).answer_form == yaml.safe_load(block.text).get(
        "answer_form", "auto"
    )


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if "stages:" in block.text], ids=str)
def test_yaml_block_with_stages_is_a_recipe_of_a_run(block):
    assert RunRecipe.from_dict(yaml.safe_load(block.text), TRAIN_RECIPES).stages


OF_DATA = [block for block in blocks("yaml") if not {"fields:", "stages:"} & set(block.text.split())]


@pytest.mark.parametrize("block", OF_DATA, ids=str)
def test_yaml_block_is_a_recipe_of_a_data_set(block):
    recipe = ThoughtsRecipe.from_dict(yaml.safe_load(block.text))
    assert recipe.output_dir == "data/mine"
