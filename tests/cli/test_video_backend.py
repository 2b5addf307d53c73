"""One option chooses what decodes clips, in every command that reads them, and is checked before anything is loaded."""

import sys

import pytest
from tests.video.clips import encode, numbered_frames
from typer.main import get_command
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.video.library_backends import BACKENDS, video_backend


# Commands that read clips, with the arguments that they cannot do without; the model is not there.
DOORS = {
    "app": ["--model", "absent"],
    "ask": ["clip.mp4", "What is this?", "--model", "absent"],
    "diagnose": ["--model", "absent", "--dataset", "absent", "--out", "out"],
    "evaluate": ["--model", "absent", "--task", "mvbench", "--out", "out"],
    "imagine": ["--model", "absent", "--dataset", "absent", "--out", "out"],
    "serve": ["--model", "absent"],
}
READS_NO_CLIPS = {
    "align",
    "answer",
    "build",
    "completion",
    "demo",
    "env",
    "grpo",
    "language",
    "plan",
    "push",
    "run",
}  # scripts have their own

doors = pytest.mark.parametrize(("command", "arguments"), DOORS.items(), ids=DOORS)


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.setenv("STORM_VIDEO_BACKEND", "pyav")  # restored at the end, whatever a command sets
    monkeypatch.delenv("STORM_VIDEO_BACKEND")


def read_arguments(command, arguments):
    context = get_command(app).make_context("storm", [command, *arguments])
    name, verb, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
    verb.make_context(name, rest, parent=context)


def test_every_command_has_the_option_or_reads_no_clips():
    commands = get_command(app).commands
    having = {name for name, each in commands.items() for option in each.params if "--video-backend" in option.opts}
    assert having == DOORS.keys()
    assert commands.keys() - having == READS_NO_CLIPS


@doors
@pytest.mark.parametrize(
    "backend", [name for name in BACKENDS if name != "torchcodec"]
)  # not its libraries everywhere
def test_option_chooses_what_reads_from_then_on(command, arguments, backend):
    read_arguments(command, [*arguments, "--video-backend", backend])
    assert video_backend() == ("pyav" if backend == "auto" else backend)


@doors
@pytest.mark.parametrize("place", ["option", "environment"])
def test_unknown_backend_is_told_before_anything_is_loaded(command, arguments, place, monkeypatch):
    if place == "environment":
        monkeypatch.setenv("STORM_VIDEO_BACKEND", "opencv")
    given = ["--video-backend", "opencv"] if place == "option" else []
    result = CliRunner().invoke(app, [command, *arguments, *given])
    assert result.exit_code == 2
    assert result.stderr == (
        "storm: Expected a video_backend among auto, pyav, decord, torchcodec but got 'opencv'.\n"
    )


@doors
def test_backend_that_is_not_installed_is_told_before_anything_is_loaded(command, arguments, monkeypatch):
    monkeypatch.setattr("storm_hf.video.library_process.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "decord", None)
    result = CliRunner().invoke(app, [command, *arguments, "--video-backend", "decord"])
    assert result.exit_code == 2
    assert result.stderr.startswith("storm: `decord` is missing. Install it with: pip install")


def test_clip_is_read_by_the_backend_that_was_chosen(checkpoint, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("storm_hf.cli.ask._print_caveats", lambda config, clip: read.append(clip.backend))
    clip = encode(tmp_path / "clip.mp4", numbered_frames(4))
    arguments = [str(clip), "Where is the ball?", "--model", str(checkpoint), "--max-new-tokens", "2"]
    for backend in ("decord", "pyav"):
        assert CliRunner().invoke(app, ["ask", *arguments, "--video-backend", backend]).exit_code == 0
    assert read == ["decord", "pyav"]
