import pytest
import typer
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli.errors import StormGroup
from storm_hf.errors import ConfigurationError


@pytest.fixture
def end_with():
    """Run a verb that raises an error, in a program with the manners of `storm`."""

    def run(error, *arguments):
        program = typer.Typer(cls=StormGroup, pretty_exceptions_enable=False)

        @program.callback()
        def options(debug: bool = False) -> None: ...

        @program.command()
        def fail() -> None:
            raise error

        return CliRunner().invoke(program, [*arguments, "fail"])

    return run


def test_error_raised_on_purpose_is_one_line_and_code_2(end_with):
    result = end_with(ConfigurationError("Expected one world\n  but got two."))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "storm: Expected one world but got two.\n"


def test_error_of_the_system_is_one_line_and_code_2(end_with):
    result = end_with(PermissionError(13, "Permission denied", "runs"))
    assert (result.exit_code, result.stderr) == (2, "storm: [Errno 13] Permission denied: 'runs'\n")


def test_debug_shows_the_traceback_before_the_sentence(end_with):
    result = end_with(ConfigurationError("No such world."), "--debug")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.endswith("storm: No such world.\n")


def test_interruption_is_one_line_and_code_130(end_with):
    result = end_with(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "storm: Interrupted.\n")


def test_bug_is_not_hidden(end_with):
    assert isinstance(end_with(ZeroDivisionError("a bug")).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["build"], "storm build [OPTIONS] {recipe}"),
        (["build", "status"], "storm build status [OPTIONS] {folder}"),
        (["serve"], "storm serve [OPTIONS]"),
        (["align"], "storm align --config RECIPE [--NAME VALUE ...]"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_usage_names_the_arguments_that_can_be_given(words, usage):
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="storm")
    assert result.stdout.splitlines()[1].strip().lower() == f"usage: {usage}".lower()


def test_remark_behind_an_example_is_a_comment_that_a_shell_skips():
    shown = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "120"}).stdout
    assert "storm demo  # takes minutes; then read runs/demo/report.html" in shown
    assert "storm demo --world order --seed 7 --out runs/order  #" not in shown


@pytest.mark.parametrize("verb", ["ask", "demo", "env"])
def test_every_verb_explains_itself_with_examples(verb):
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert f"storm {verb}" in result.stdout.partition("Examples:")[2]


def test_model_of_the_server_as_an_argument_is_refused_with_the_form_that_is_taken():
    result = CliRunner().invoke(app, ["serve", "--port", "8000", "runs/storm"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "storm: The model of `storm serve` is an option now: `storm serve --model runs/storm`.\n"


def test_help_shows_no_type_beside_a_flag():
    for command in ([], ["push"], ["build", "status"]):
        assert "<bool>" not in CliRunner().invoke(app, [*command, "--help"]).stdout


def test_help_breaks_the_lines_of_a_paragraph_where_the_terminal_does(monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1000)
    shown = CliRunner().invoke(app, ["push", "--help"]).stdout
    assert "Credentials, pickles and paths of this machine are refused. Clips of a data set" in shown


def test_version_is_shown():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, "storm-hf 0.1.0\n")
