"""`storm imagine` trains a decoder once, says what it counted, and gives the address of the page."""

import json

import pytest
from tests.diagnostics.thinker import NUM_LATENTS, make_thinker
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.diagnostics.latent_decoder.renderer import LatentRenderer
from storm_hf.target_trajectory import TargetSettings, build_thoughts
from storm_hf.thought_video import WorldRecipe, WorldSplit, render_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and a data set of its world."""
    folder = tmp_path_factory.mktemp("imagine")
    thinker = make_thinker(folder / "clips", num_rows=0)
    thinker.model.save_pretrained(folder / "model")
    thinker.processor.save_pretrained(folder / "model")
    splits = {"train": WorldSplit(count=8), "validation": WorldSplit(count=4), "test": WorldSplit(count=12)}
    recipe = WorldRecipe("shuffle", splits, {"num_steps": NUM_LATENTS, "min_swaps": 1, "max_swaps": NUM_LATENTS})
    settings = TargetSettings(NUM_LATENTS, rank=8)
    examples = render_world(recipe, folder / "data")
    build_thoughts(folder / "data", examples, thinker.model, thinker.processor, settings, encoder="tiny")
    return folder


def imagine(folder, *options):
    arguments = ["--model", str(folder / "model"), "--dataset", str(folder / "data"), "--out", str(folder / "out")]
    return CliRunner().invoke(app, ["imagine", *arguments, "--updates", "3", "--rows", "3", "--scenes", "1", *options])


def diagnose(folder, *options):
    names = ["--model", str(folder / "model"), "--dataset", str(folder / "data"), "--out", str(folder / "diagnosis")]
    return CliRunner().invoke(app, ["diagnose", *names, *options])


def test_address_goes_to_stdout_and_counts_to_stderr(folder):
    result = imagine(folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{folder / 'out' / 'imagine.html'}\n"
    assert f"of {3 * NUM_LATENTS} drawn frames show the true state." in result.stderr
    assert "of 3 answers are correct." in result.stderr
    weights = folder / "model" / "decoder" / "decoder.safetensors"
    written = weights.stat().st_mtime_ns
    assert imagine(folder, "--seed", "1").exit_code == 0
    assert weights.stat().st_mtime_ns == written
    assert json.loads((folder / "out" / "imagine.json").read_text())["num_read"] == 3


def test_folder_of_a_run_stands_for_its_data_set(folder):
    result = imagine(folder, "--dataset", str(folder))
    assert result.exit_code == 0, result.stderr


def test_diagnose_after_imagine_shows_the_pictures(folder):
    assert imagine(folder).exit_code == 0
    result = diagnose(folder)
    assert result.exit_code == 0, result.stderr
    assert (folder / "diagnosis" / "diagnosis.json").is_file()
    assert (folder / "diagnosis" / "diagnosis.html").read_text().count("<video") == 3


def test_diagnose_of_few_questions_says_why_it_shows_no_picture(folder):
    assert imagine(folder).exit_code == 0
    result = diagnose(folder, "--limit", "4")
    assert result.exit_code == 0, result.stderr
    assert "No pictures of the latents: they are compared with 8 other questions, and there are 1." in result.stderr


def test_diagnosis_is_written_before_its_pictures(folder, monkeypatch):
    assert imagine(folder).exit_code == 0
    (folder / "diagnosis" / "diagnosis.json").unlink(missing_ok=True)
    monkeypatch.setattr(LatentRenderer, "pictures", lambda *args: 1 / 0)
    assert isinstance(diagnose(folder).exception, ZeroDivisionError)
    assert (folder / "diagnosis" / "diagnosis.json").is_file()
    assert (folder / "diagnosis" / "diagnosis.html").is_file()


def test_unknown_split_is_told_with_those_there_are(folder):
    result = imagine(folder, "--split", "dreams")
    assert result.exit_code == 2
    assert "train" in result.stderr
    assert "Give --split" in result.stderr
