"""`storm imagine` trains a decoder once, says what it counted, and gives the address of the page."""

import json

import pytest
from tests.diagnostics.thinker import NUM_LATENTS, make_thinker
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.target_trajectory import TargetSettings, build_thoughts
from storm_hf.thought_video import WorldRecipe, WorldSplit, render_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and a data set of its world."""
    folder = tmp_path_factory.mktemp("imagine")
    thinker = make_thinker(folder / "clips", num_rows=0)
    thinker.model.save_pretrained(folder / "model")
    thinker.processor.save_pretrained(folder / "model")
    splits = {"train": WorldSplit(count=8), "validation": WorldSplit(count=4), "test": WorldSplit(count=4)}
    recipe = WorldRecipe("shuffle", splits, {"num_steps": NUM_LATENTS, "min_swaps": 1, "max_swaps": NUM_LATENTS})
    settings = TargetSettings(NUM_LATENTS, rank=8)
    examples = render_world(recipe, folder / "data")
    build_thoughts(folder / "data", examples, thinker.model, thinker.processor, settings, encoder="tiny")
    return folder


def imagine(folder, *options):
    arguments = ["--model", str(folder / "model"), "--dataset", str(folder / "data"), "--out", str(folder / "out")]
    return CliRunner().invoke(app, ["imagine", *arguments, "--updates", "3", "--rows", "3", "--scenes", "1", *options])


def test_address_goes_to_stdout_and_counts_to_stderr(folder):
    result = imagine(folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{folder / 'out' / 'imagine.html'}\n"
    assert f"of {3 * NUM_LATENTS} drawn frames show the true state." in result.stderr
    assert "of 3 answers are right." in result.stderr
    weights = folder / "model" / "decoder" / "decoder.safetensors"
    written = weights.stat().st_mtime_ns
    assert imagine(folder, "--seed", "1").exit_code == 0
    assert weights.stat().st_mtime_ns == written
    assert json.loads((folder / "out" / "imagine.json").read_text())["num_read"] == 3


def test_unknown_split_is_told_with_those_there_are(folder):
    result = imagine(folder, "--split", "dreams")
    assert result.exit_code == 2
    assert "train" in result.stderr
    assert "Give --split" in result.stderr
