"""`storm diagnose` says its verdict in one sentence, and leaves a record and a page."""

import json

import pytest
from tests.diagnostics.thoughts import write_model_and_thoughts
from typer.testing import CliRunner

from storm_hf.cli import app


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_model_and_thoughts(tmp_path_factory.mktemp("diagnose"))


def diagnose(run, *options):
    arguments = ["--model", str(run / "model"), "--dataset", str(run), "--out", str(run / "out")]
    return CliRunner().invoke(app, ["diagnose", *arguments, *options])


def test_verdict_goes_to_stdout_and_the_table_to_stderr(run):
    result = diagnose(run)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("This test cannot tell. 6 clips are too few")
    assert len(result.stdout.splitlines()) == 1
    assert "6 questions about 6 clips, chance 25.0%" in result.stderr
    assert str(run / "out" / "diagnosis.html") in result.stderr.replace("\n", "")
    record = json.loads((run / "out" / "diagnosis.json").read_text())
    assert record["dataset"] == str(run)
    assert record["verdict"]["outcome"] == "unclear"
    assert (run / "out" / "diagnosis.html").read_text().startswith("<!doctype html>")


def test_share_of_answers_that_name_no_option_is_told_and_recorded(run):
    result = diagnose(run)
    unreadable = json.loads((run / "out" / "diagnosis.json").read_text())["effects"]["own"]["unreadable"]
    assert unreadable > 0  # this model is not trained
    assert (
        f"{unreadable:.1%} of the model's own answers name none of the options, and count as wrong." in result.stderr
    )
    assert "unread" in result.stderr


def test_options_choose_the_questions_and_what_is_missing_is_told(run):
    result = diagnose(run, "--depth", "4", "--limit", "2", "--world", "order", "--seed", "3")
    assert result.exit_code == 0, result.stderr
    assert "storm: Skipped the edits of a state. The world order cannot be described in 4 steps" in result.stderr
    assert json.loads((run / "out" / "diagnosis.json").read_text())["num_questions"] == 2


def test_too_few_questions_are_told_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.setattr("storm_hf.cli.diagnose.load_model", lambda name: 1 / 0)
    result = diagnose(run, "--depth", "99")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Expected two questions or more in the split test of " in result.stderr
    assert "and 30 clips for a verdict, but got 0 of these depths." in result.stderr


def test_unknown_split_ends_in_one_line(run):
    result = diagnose(run, "--split", "dreams")
    assert result.exit_code == 2
    assert "has no split 'dreams'" in result.stderr
    assert "Traceback" not in result.stderr
