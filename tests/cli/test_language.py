"""`storm language` says in one line what a model kept of its language, and leaves a record."""

import json

import pytest
from transformers import AutoProcessor
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.evaluation.language import LanguageMeasure, LanguageReport
from storm_hf.model import StormForConditionalGeneration, add_latent_tokens


@pytest.fixture(scope="module")
def folder(qwen_checkpoint, tmp_path_factory):
    place = tmp_path_factory.mktemp("language")
    model = StormForConditionalGeneration.from_backbone(str(qwen_checkpoint), num_latents=3)
    model.get_output_embeddings().weight.data.mul_(0.5)
    model.save_pretrained(place / "storm")
    add_latent_tokens(AutoProcessor.from_pretrained(qwen_checkpoint), 3).save_pretrained(place / "storm")
    (place / "texts.txt").write_text("The ball rolls left.\n\nWhere is the red ball now?\n")
    (place / "prompts.txt").write_text("Hello?\nWhere is [bold]it[/bold]?\n")
    return place


def measure(folder, out, *options, model=None):
    files = ["--texts", str(folder / "texts.txt"), "--prompts", str(folder / "prompts.txt"), "--max-new-tokens", "3"]
    arguments = ["--model", str(model or folder / "storm"), "--out", str(folder / out), *files, *options]
    return CliRunner().invoke(app, ["language", *arguments])


def test_model_is_compared_with_the_plain_one_that_it_was_made_of(folder, qwen_checkpoint):
    result = measure(folder, "report.json", "--before", str(qwen_checkpoint))
    assert result.exit_code == 0, result.stderr
    report = LanguageReport.from_json((folder / "report.json").read_text())
    assert report.before.perplexity != report.after.perplexity
    assert result.stdout.startswith(f"Perplexity {report.before.perplexity:.2f} before, ")
    assert f" of 2 prompts are answered as before (95% interval {report.kept.low:.1%} to " in result.stdout
    assert len(result.stdout.splitlines()) == 1
    assert "Language without latents" in result.stderr
    assert json.loads((folder / "report.json").read_text())["pairs"][1]["prompt"] == "Where is [bold]it[/bold]?"


def test_record_of_the_model_before_takes_its_place(folder, qwen_checkpoint):
    alone = measure(folder, "before.json", model=qwen_checkpoint)
    assert alone.exit_code == 0, alone.stderr
    before = LanguageMeasure.from_json((folder / "before.json").read_text())
    assert alone.stdout.startswith(f"Perplexity {before.perplexity:.2f}. 2 answers are in ")
    compared = measure(folder, "compared.json", "--before", str(folder / "before.json"))
    assert compared.exit_code == 0, compared.stderr
    assert LanguageReport.from_json((folder / "compared.json").read_text()).before == before


def test_record_over_other_texts_ends_in_one_line_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("storm_hf.cli.language.load_any_model", lambda name: 1 / 0)
    other = LanguageMeasure("before", 20.0, 9, "0" * 16, ("Hi",), ("Hello",), 3)
    (folder / "other.json").write_text(other.to_json())
    result = measure(folder, "refused.json", "--before", str(folder / "other.json"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Expected two measures over the same texts and prompts" in result.stderr
    assert not (folder / "refused.json").exists()


def test_file_that_is_no_record_ends_in_one_line(folder):
    result = measure(folder, "refused.json", "--before", str(folder / "texts.txt"))
    assert result.exit_code == 2
    assert "Expected the JSON of a measure of language" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_texts_end_in_one_line(folder):
    result = measure(folder, "refused.json", "--texts", str(folder / "absent.txt"))
    assert result.exit_code == 2
    assert "absent.txt cannot be read" in result.stderr
