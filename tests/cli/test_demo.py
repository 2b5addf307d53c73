import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.demo.demo_story import made_up_report
from typer.testing import CliRunner

from storm_hf import demo
from storm_hf.cli import app
from storm_hf.errors import StaleWorkError
from storm_hf.optional import install_command
from storm_hf.worlds import WORLD_NAMES, make_world


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
        {"out": Path("runs/demo"), "recipe": demo.demo_recipe()},
        {"out": Path("runs/x"), "recipe": demo.demo_recipe("order", 7, naive_targets=True)},
    ]


def test_pretrained_backbone_is_asked_for_by_name(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", SimpleNamespace())
    _, calls = run(made_up_report(), "--backbone", "smollm2")
    assert calls == [{"out": Path("runs/demo"), "recipe": demo.demo_recipe(backbone="smollm2")}]


def test_summary_shows_arms_interventions_and_where_the_page_is(run):
    result, _ = run(made_up_report(storm=0.9961), "--out", "runs/x")
    assert result.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert ["STORM", "99.6%", "99.0%", "8"] in rows
    assert ["Chain of thought, in sentences", "99.8%", "99.6%", "62"] in rows
    assert ["Zeros", "25.8%", "26.2%"] in rows
    assert ["Another clip's: the answer is that clip's", "99.4%", "98.8%"] in rows
    assert "512 held-out clips with 5 or 6 swaps of the shuffle world, chance 25%" in result.stdout.replace("\n", " ")
    assert "Open runs/x/report.html. Then:" in result.stdout


def test_terse_chain_has_a_row_where_the_run_has_its_results(run, tmp_path):
    results = {"accuracy": 0.5, "open": {"accuracy": 0.25}, "forward_passes": 7.0}
    (tmp_path / "arms" / "terse_chain").mkdir(parents=True)
    (tmp_path / "arms" / "terse_chain" / "results.json").write_text(json.dumps(results))
    result, _ = run(made_up_report(), "--out", str(tmp_path))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert ["Terse chain, one word a step", "50.0%", "25.0%", "7"] in rows


@pytest.mark.parametrize("world", WORLD_NAMES)
def test_summary_ends_with_commands_that_this_program_takes(run, tmp_path, world):
    depth = max(demo.demo_recipe(world).deep)
    clips = tmp_path / "my run" / "data" / "videos" / "test" / "clips"
    clips.mkdir(parents=True)
    for seed in (2000578, 2000576):
        (clips / f"{world}-{seed:09d}-d{depth}.mp4").touch()
    out = str(tmp_path / "my run")
    result, _ = run(made_up_report(checkpoint=f"{out}/storm"), "--out", out, "--world", world)
    commands = [shlex.split(line) for line in result.stdout.splitlines() if line.startswith("  storm ")]
    assert [words[1] for words in commands] == ["ask", "imagine", "diagnose"]
    ask = commands[0]
    assert ask[2] == str(clips / f"{world}-002000576-d{depth}.mp4")
    assert ask[3] == make_world(world, **demo.demo_recipe(world).knobs).describe(2000576, depth=depth).question
    for _, verb, *words in commands:
        known = CliRunner().invoke(app, [verb, "--help"]).output
        assert all(word in known for word in words if word.startswith("--"))
        assert words[words.index("--model") + 1] == f"{out}/storm"


@pytest.mark.parametrize("is_found", [True, False])
def test_environment_is_activated_first_where_the_command_is_not_found(run, monkeypatch, is_found):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/storm" if is_found else None)
    result, _ = run(made_up_report())
    assert ("/bin/activate" in result.stdout) is not is_found


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


@pytest.mark.parametrize("world", WORLD_NAMES)
def test_every_world_is_named_by_the_help_and_can_be_chosen(run, world):
    assert world in CliRunner().invoke(app, ["demo", "--help"], terminal_width=200).stdout
    result, calls = run(made_up_report(), "--world", world)
    assert (result.exit_code, calls[0]["recipe"].world) == (0, world)


def test_unknown_world_is_told_with_those_there_are(run):
    result, calls = run(made_up_report(), "--world", "chess")
    assert (result.exit_code, calls) == (2, [])
    assert result.stderr == f"storm: Expected a world of {', '.join(WORLD_NAMES)} but got 'chess'.\n"
