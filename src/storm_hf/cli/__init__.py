"""The `storm` command. Each subcommand has a file of its own and imports its dependencies when it is called."""

import os
import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from storm_hf.cli import app as app_page
from storm_hf.cli import (
    ask,
    build,
    completion,
    demo,
    diagnose,
    env,
    evaluate,
    imagine,
    language,
    plan,
    push,
    serve,
    train,
)
from storm_hf.cli.errors import StormCommand, StormGroup
from storm_hf.cli.output import silence_imports


EPILOG = """Begin with [bold]storm demo[/bold], which trains a tiny model in minutes, then ask it something:

[bold]storm ask clip.mp4 "Where is the ball now?" --latents zero[/bold]

A command that cannot do what it was asked to says why in one sentence and ends with code 2."""

app = typer.Typer(
    name="storm",
    cls=StormGroup,
    epilog=EPILOG,
    add_completion=False,  # typer's starts Python, and loads transformers, at each press of the tab key: cli/completion.py
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a bug is reported with the plain traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)
_command = partial(app.command, cls=StormCommand)
_script_command = partial(app.command, cls=train.ScriptCommand, options_metavar="--config RECIPE [--NAME VALUE ...]")
_script_command("align", epilog=train.ALIGN_EPILOG)(train.align)
_script_command("answer", epilog=train.ANSWER_EPILOG)(train.answer)
_command("app", epilog=app_page.EPILOG)(app_page.open_page)
_command("ask", epilog=ask.EPILOG)(ask.ask_clip)
app.add_typer(build.app, name="build")
_command("completion", epilog=completion.EPILOG)(completion.print_completion)
_command("demo", epilog=demo.EPILOG)(demo.run_demo)
_command("diagnose", epilog=diagnose.EPILOG)(diagnose.diagnose_model)
_command("env", epilog=env.EPILOG)(env.show_environment)
_command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate_model)
_script_command("grpo", epilog=train.GRPO_EPILOG)(train.grpo)
_command("imagine", epilog=imagine.EPILOG)(imagine.imagine_clips)
_command("language", epilog=language.EPILOG)(language.measure_model)
_command("plan", epilog=plan.EPILOG)(plan.plan_recipe)
_command("push", epilog=push.EPILOG)(push.push_folder)
_script_command("run", epilog=train.RUN_EPILOG)(train.run)
_command("serve", epilog=serve.EPILOG)(serve.serve_model)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from storm_hf import __version__

        typer.echo(f"storm-hf {__version__}")
        raise typer.Exit


@app.callback()
def storm(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, before its sentence.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Video-language models that think in latent video before they answer."""


def _replace_closed_streams() -> None:
    """Open standard streams that were closed before the start, such as by `2>&-`.

    Python has None for them, which no message can be written to, and the next file that is opened would take their number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # for as long as the process runs


def main() -> None:
    """Run the `storm` command."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what a terminal cannot show
    silence_imports()
    app()
