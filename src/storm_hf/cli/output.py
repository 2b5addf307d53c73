"""Output of the commands: results go to stdout, messages and progress to stderr."""

import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import typer


def print_message(sentence: str) -> None:
    """Print a message that is not the result: on stderr, under the name of the command."""
    typer.echo(f"storm: {sentence}", err=True)


def given_command() -> str:
    """Return the command as it was given, for reports that name what makes them again."""
    return shlex.join(["storm", *sys.argv[1:]])


def printable(text: str) -> str:
    """Replace the characters that would control a terminal instead of being shown in it."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Show on a terminal that something without a known length goes on.

    Args:
        title (`str`):
            Title of the task.
    """
    from rich.console import Console

    with Console(stderr=True).status(title) if sys.stderr.isatty() else nullcontext():
        yield


def silence_imports() -> None:
    """Silence what a library logs while it is imported: bitsandbytes, on a CPU, that a kernel for 4-bit weights is missing."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def silence_libraries() -> None:
    """Silence remarks and bars of libraries that load a model: a command has its own."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr while work goes on, if stderr is a terminal.

    Args:
        title (`str`):
            Title of the task.
        total (`int`):
            Number of items.

    Yields:
        `Callable`: Counts finished items, one unless it is given a number.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)

        def count_up(number: int = 1) -> None:
            progress.advance(task, number)

        yield count_up
