import sys
from pathlib import Path

import pytest
from tests.demo.demo_story import made_up_report
from typer.testing import CliRunner

from storm_hf import demo
from storm_hf.cli import app
from storm_hf.cli.demo import WorldName
from storm_hf.errors import StaleWorkError
from storm_hf.optional import install_command
from storm_hf.worlds import WORLD_NAMES


@pytest.fixture
def run(monkeypatch):
    """Run `storm demo` where the demo itself does what it is told, and note its arguments."""
    calls = []

    def make(outcome, *arguments):
        def pretend(**kwargs):
            calls.append(kwargs)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(demo, "run_demo", pretend)
        return CliRunner().invoke(app, ["demo", *arguments]), calls

    return make


def test_defaults_and_options_reach_the_demo(run):
    _, calls = run(made_up_report())
    run(made_up_report(), "--out", "runs/x", "--world", "order", "--seed", "7", "--naive-targets")
    assert calls == [
        {"out": Path("runs/demo"), "world": "shuffle", "seed": 0, "naive_targets": False},
        {"out": Path("runs/x"), "world": "order", "seed": 7, "naive_targets": True},
    ]


def test_summary_shows_arms_interventions_and_where_the_page_is(run):
    result, _ = run(made_up_report(storm=0.9961), "--out", "runs/x")
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert ["storm", "99.6%", "8.0", "27"] in rows
    assert ["chain of thought", "99.8%", "62.0", "211"] in rows
    assert ["zeros", "25.8%"] in rows
    assert ["another clip's: the answer is that clip's", "99.4%"] in rows
    assert result.stdout.splitlines()[-1] == "Report: runs/x/report.html"


def test_interruption_says_how_to_go_on(run):
    result, _ = run(KeyboardInterrupt())
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "storm: Interrupted. Run the same command again to continue.\n"


def test_error_of_the_demo_is_one_sentence(run):
    result, _ = run(StaleWorkError("The folder was begun with another seed."))
    assert (result.exit_code, result.stderr) == (2, "storm: The folder was begun with another seed.\n")


def test_missing_extra_is_named_before_anything_runs(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result, calls = run(made_up_report())
    assert (result.exit_code, calls) == (2, [])
    assert result.stderr == f"storm: `jinja2` is missing. Install it with: {install_command('demo')}\n"


def test_every_world_can_be_chosen():
    assert tuple(WorldName) == WORLD_NAMES
