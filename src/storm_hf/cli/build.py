"""`storm build`: progress of a thought-video data set, and retry of its rejected rows."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


EPILOG = """Examples:

[bold]storm build status data/thoughts[/bold]   while it is built, or afterwards

[bold]storm build status data/thoughts --json | jq '.steps[].num_rejected'[/bold]   for a program"""

RETRY_EPILOG = """Examples:

[bold]storm build retry data/thoughts --reason unreadable[/bold]   after clips were mended; then give the command of the build again"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def build() -> None:
    """Show the progress of a thought-video data set that datasets_builders/storm_thoughts.py builds, or retry its rejected rows."""


@app.command("status", epilog=EPILOG)
def show_status(
    folder: Annotated[Path, typer.Argument(help="The output_dir of the build.", show_default=False)],
    parameters: Annotated[bool, typer.Option("--parameters", help="Also print the parameters of each step.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the progress of a build: shards, rows, rejected rows by reason, rate and time left of each step.

    Nothing is written, so it can be used while the build runs.
    """
    from storm_hf.builder.status import build_status
    from storm_hf.builder.status_table import parameters_page, status_table

    status = build_status(folder)
    if as_json:
        typer.echo(json.dumps(asdict(status) | {"folder": str(status.folder)}, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(status_table(status))
    if parameters:
        console.print(parameters_page(status))


@app.command("retry", epilog=RETRY_EPILOG)
def retry(
    folder: Annotated[Path, typer.Argument(help="The output_dir of the build.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Kind of rejection, as `storm build status` counts them.")],
) -> None:
    """Remove the shards with rows that were rejected for a reason, so that the next build tries these rows again.

    Rows that were rejected because reading took too long are tried again without this, once `reading.timeout_seconds` grows.
    """
    from storm_hf.builder.retry import retry_rows

    count = retry_rows(folder, reason)
    typer.echo(f"{count} rows will be tried again. Give the command that built {folder} once more.")
