"""Map exceptions to one-line messages on stderr and exit codes, without a traceback."""

import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from storm_hf.errors import StormError, one_line


FAILED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class StormGroup(TyperGroup):
    """Command group that prints intended errors and those of the system in one line. Everything else is a bug."""

    def invoke(self, ctx: Any) -> Any:  # a `Context`, whose home differs between versions of typer
        """Run the command and turn what it raises into an exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output has gone; typer ends quietly
            raise
        except (StormError, OSError) as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            tell(one_line(error))
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as interrupt:
            tell("Interrupted.")
            raise typer.Exit(INTERRUPTED) from interrupt


@contextmanager
def ends_in_one_line(program: str) -> Iterator[None]:
    """The same for a script, which is no command of `storm`.

    Args:
        program (`str`):
            Its name.
    """
    try:
        yield
    except (StormError, OSError) as error:
        typer.echo(f"{program}: {one_line(error)}", err=True)
        raise SystemExit(FAILED) from error


def tell(sentence: str) -> None:
    """Print a message that is not the result: on stderr, under the name of the command."""
    typer.echo(f"storm: {sentence}", err=True)


def given_command() -> str:
    """The command as it was given, for reports that name what makes them again."""
    return shlex.join(["storm", *sys.argv[1:]])
