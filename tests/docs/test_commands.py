"""Every command that the README and the pages show exists, with the options that it is given; cheap ones are run."""

import itertools
import re
import runpy
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from tests.docs.pages import ROOT, commands, mentions
from trl import TrlParser
from typer.main import get_command
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli.build import BUILD
from storm_hf.cli.shipped import TRAIN_RECIPES, names_in
from storm_hf.curriculum.recipe import argument_records
from storm_hf.evaluation.harness.benchmarks import BENCHMARKS


RUN = ("ask", "env", "plan")  # seconds on stand-ins; the other verbs are run in tests/cli
COMMANDS = [shlex.split(command) for command in commands()]
MENTIONS = [shlex.split(command) for command in mentions()]
EXAMPLES = [  # of the page that is made from the commands
    shlex.split(re.split(" [>|] ", line)[0])
    for line in re.findall(
        r"^(?:[A-Z_]+=\S+ )*(storm .*)$",
        runpy.run_path(str(ROOT / "docs" / "generated.py"))["commands_page"](),
        flags=re.MULTILINE,
    )
]
TRAINING = ("align", "answer", "grpo", "run")  # their options are those of scripts
EVERYWHERE = {"--config"}  # TRL's parser takes it before the one that prints the help
PROGRAMS = ("accelerate", "bash", "git", "hf", "make", "pip", "python", "source", "storm")  # each has a test below


def named(parts):
    return pytest.mark.parametrize("words", parts, ids=shlex.join)


def of(*programs, parts=(*COMMANDS, *MENTIONS)):
    """Commands of these programs, without the variables that are set for them."""
    stripped = ([*itertools.dropwhile(lambda word: "=" in word, words)] for words in parts)
    return [words for words in stripped if words[0] in programs]


def read_arguments(words):
    """Let a command of `storm` read its arguments, without running it."""
    context = get_command(app).make_context(words[0], words[1:])
    while hasattr(context.command, "resolve_command"):
        name, verb, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = verb.make_context(name, rest, parent=context)


@cache
def training_options(name):
    """Options of a training command: those of its scripts, and those of accelerate."""
    stages = ("align", "answer") if name == "run" else (name,)
    parsers = [launch_command_parser(), *(TrlParser(argument_records(stage)) for stage in stages)]
    return {"--config", "--accelerate_config"}.union(*(parser._option_string_actions for parser in parsers))


def script_of(words):
    return next((word for word in words if word.endswith(".py")), None)


def test_every_command_is_of_a_program_that_is_checked_here():
    assert COMMANDS
    assert len(of(*PROGRAMS)) == len(COMMANDS) + len(MENTIONS)


@named(of("hf"))
def test_download_is_that_of_a_benchmark(words):
    assert shlex.join(words) in {benchmark.command(Path("data")) for benchmark in BENCHMARKS.values()}


@named(of("storm", parts=COMMANDS))
def test_command_of_storm_reads_its_arguments(words, reader, monkeypatch):
    monkeypatch.chdir(reader)
    read_arguments(words)


@named([*of("storm", parts=MENTIONS), *EXAMPLES])
def test_mention_of_storm_names_a_command_and_its_options(words):
    command = get_command(app)
    for word in words[1:]:
        inner = getattr(command, "commands", {})
        command = inner.get(word, inner.get(BUILD, command))
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    known |= training_options(words[1]) if words[1] in TRAINING else set()
    assert command.name in {*words, BUILD}
    assert {word for word in words if word.startswith("--")} - {"--"} <= known


@named([words for words in of("storm", parts=COMMANDS) if words[1] in TRAINING])
def test_training_command_has_a_recipe_and_options_that_exist(words):
    assert words[words.index("--config") + 1] in names_in(TRAIN_RECIPES)
    assert {word for word in words if word.startswith("--")} <= training_options(words[1])


@pytest.mark.slow
@named([words for words in of("storm", parts=COMMANDS) if words[1] in RUN or words[1:3] == ["build", "status"]])
def test_cheap_command_of_storm_runs(words, reader, monkeypatch):
    monkeypatch.chdir(reader)
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.stderr
    assert result.stdout


@named(of("make"))
def test_target_of_make_exists(words):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(words[1:]) <= set(targets)


@named(of("git"))
def test_clone_is_entered(words):
    folder = words[words.index("&&") - 1]
    assert words[:2] == ["git", "clone"]
    assert words[-2:] == ["cd", folder]


@named(of("source"))
def test_environment_that_is_activated_is_one_that_make_makes(words):
    assert words[0] == "source"
    folder = words[1].removesuffix("/bin/activate")
    assert re.search(rf"^\w+ := {re.escape(folder)}(/\.ready)?$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@named(of("pip"))
def test_extra_that_is_installed_exists(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[:2] == ["pip", "install"]
    (named,) = re.findall(r"\[([\w,]+)\]", words[2]) or [""]
    assert set(filter(None, named.split(","))) <= set(extras)


@named(of("python", "accelerate", "bash"))
def test_files_that_a_command_names_exist(words):
    files = [word for word in words if re.match(r"(trainers|datasets_builders|benchmarks|tests|tools|\.ci)/", word)]
    assert files or words[1:3] == ["-m", "pytest"]
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted({script_of(words) for words in of("python", "accelerate")} - {None}))
def test_script_knows_the_options_that_it_is_given(script, warm_python):
    given = {
        word
        for words in of("python", "accelerate")
        if script_of(words) == script
        for word in words[words.index(script) + 1 :]
        if word.startswith("--")
    }
    help_text = warm_python.run_script(ROOT / script, "--help")
    assert help_text.returncode == 0, help_text.stderr
    assert given - set(re.findall(r"--[\w-]+", help_text.stdout)) <= EVERYWHERE
