"""Progress bar of a command, on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar while work goes on; a terminal alone sees it.

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
