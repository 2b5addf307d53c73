"""The script of `storm completion`, read by a real shell."""

import subprocess

import pytest
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.interventions.kind import OF_ONE_QUESTION


@pytest.fixture(scope="module")
def script():
    result = CliRunner().invoke(app, ["completion"])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def completed(script, line, folder):
    """Completions of bash at the end of a line."""
    words = " ".join(f'"{word}"' for word in line.split(" "))
    ask = f'COMP_WORDS=({words}); COMP_CWORD={line.count(" ")}; _storm_completion; printf "%s\\n" "${{COMPREPLY[@]}}"'
    finished = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], cwd=folder, capture_output=True, text=True, check=True
    )
    return finished.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("storm di", ["diagnose"]),
        ("storm --debug di", ["diagnose"]),
        ("storm build ", ["status", "retry"]),
        ("storm build status --j", ["--json"]),
        ("storm ask clip.mp4 why --num", ["--num-latents"]),
        ("storm ask clip.mp4 why --latents ", list(OF_ONE_QUESTION)),
        ("storm ask clip.mp4 why --latents z", ["zero"]),
        ("storm ask cl", []),
        ("storm demo --world s", ["shuffle"]),
        ("storm nonsense", []),
    ],
)
def test_bash_offers_what_fits(script, line, offered, tmp_path):
    assert completed(script, line, tmp_path) == offered


def test_every_verb_is_offered(script, tmp_path):
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert verbs <= set(completed(script, "storm ", tmp_path))
