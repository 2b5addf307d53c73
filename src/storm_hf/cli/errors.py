"""Exceptions as one-line messages on stderr and exit codes, without a traceback."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from storm_hf.cli.output import print_message
from storm_hf.errors import ConfigurationError, StormError, one_line


FAILED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
DEBUG = "STORM_DEBUG"  # asks scripts for tracebacks
_REMARK = re.compile(r"^(\[bold\].*\[/bold\]) {2,}(?!\[dim\])(.+)$", re.MULTILINE)  # behind an example

# Earlier options of each command, and what to give instead.
_RENAMED = {
    "evaluate": {
        "--tasks": "`--task`, once for each: `--task videomme --task mvbench`",
        "--arm": "`--variant`",
        "--arms": "`--variant`, once for each: `--variant storm --variant direct`",
    },
    "plan": {"--config": "`--model`"},
    "build": {
        "--config": "the first argument: `storm build RECIPE`",
        "--output_dir": "`--out`",
        "--model_name_or_path": "`--model`",
    },
}


class StormCommand(TyperCommand):
    """Command with a tidy help text."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the help."""
        _tidy(self, ctx)
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Leave hidden arguments out of the usage line."""
        shown = [parameter for parameter in self.get_params(ctx) if not getattr(parameter, "hidden", False)]
        return [
            *filter(None, [self.options_metavar]),
            *chain.from_iterable(each.get_usage_pieces(ctx) for each in shown),
        ]


class StormGroup(TyperGroup):
    """Command group that prints intended errors and those of the system in one line. Everything else is a bug."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the help."""
        _tidy(self, ctx)
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # its base differs between versions
        """List the commands by name, groups among them."""
        return sorted(self.commands)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Find the command, and refuse its earlier options by naming the new ones."""
        name, command, rest = super().resolve_command(ctx, args)
        for word in rest:
            if new := _RENAMED.get(str(name), {}).get(word.partition("=")[0]):
                raise ConfigurationError(f"`{word.partition('=')[0]}` of `storm {name}` has become {new}.")
        return name, command, rest

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command and turn what it raises into an exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output has gone; typer ends quietly
            raise
        except (StormError, OSError) as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            print_message(one_line(error))
            raise typer.Exit(getattr(error, "exit_code", FAILED)) from error
        except KeyboardInterrupt as interrupt:
            print_message("Interrupted.")
            raise typer.Exit(INTERRUPTED) from interrupt


def _tidy(command: TyperCommand | TyperGroup, ctx: typer.Context) -> None:
    """Show no type beside a flag, a remark as a comment, and break the lines of a paragraph where the terminal does."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    command.epilog = _REMARK.sub(r"\1  [dim]# \2[/dim]", re.sub(r"(?<!\n)\n(?!\n)", " ", command.epilog or ""))
    for parameter in command.get_params(ctx):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""


@contextmanager
def ends_in_one_line(program: str) -> Iterator[None]:
    """Do the same for a script, which is no command of `storm`.

    Args:
        program (`str`):
            Name of the script.
    """
    try:
        yield
    except (StormError, OSError) as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        typer.echo(f"{program}: {one_line(error)}", err=True)
        raise SystemExit(FAILED) from error


def refuse_commas(names: list[str] | None) -> list[str] | None:
    """Check the values of a repeatable option: none is a list of its own."""
    for name in names or ():
        if "," in name:
            first, _, second = name.partition(",")
            raise ConfigurationError(
                f"Expected one name at a time but got {name!r}. Give the option once for each: `{first.strip()}`, then "
                f"again with `{second.strip()}`."
            )
    return names
