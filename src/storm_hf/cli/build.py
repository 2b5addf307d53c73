"""`storm build`: build a thought-video data set, show the progress of a build, and retry its rejected rows."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from storm_hf.cli.errors import StormCommand
from storm_hf.cli.options import AsJson
from storm_hf.cli.output import print_message, silence_libraries, waiting
from storm_hf.cli.shipped import BUILD_RECIPES, named_file
from storm_hf.errors import DatasetError
from storm_hf.settings import read_yaml


if TYPE_CHECKING:
    from rich.console import RenderableType

    from storm_hf.builder import ThoughtsRecipe, ThoughtsReport


BUILD = "RECIPE"  # the command behind `storm build RECIPE`, whose first word is no name of a subcommand
BUILD_EPILOG = """Examples:

[bold]storm build shuffle_tiny --model runs/base --out data/shuffle[/bold]   a recipe that comes with storm-hf

[bold]storm build mine.yaml --workers 4[/bold]   the same command resumes a build that was stopped

[bold]storm build mine.yaml --tasks 64 --slurm slurm.yaml[/bold]   settings of datatrove's SlurmPipelineExecutor

[bold]RAY_ADDRESS=auto storm build mine.yaml --tasks 64 --ray ray.yaml[/bold]   on a cluster with shared files; {num_gpus: 1}

[bold]storm build status data/shuffle[/bold]   the progress of each step

[bold]storm build retry data/shuffle --reason unreadable[/bold]   try rejected rows again"""

STATUS_EPILOG = """Examples:

[bold]storm build status data/thoughts[/bold]   while it is built, or afterwards

[bold]storm build status data/thoughts --json | jq '.steps[].num_rejected'[/bold]   for a program"""

RETRY_EPILOG = """Examples:

[bold]storm build retry data/thoughts --reason unreadable[/bold]   after clips were mended; then give the command of the build again"""


class _BuildGroup(TyperGroup):
    """Subcommands of `storm build`. Any other first word is the recipe of a build."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the command that builds before a recipe."""
        is_subcommand = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if is_subcommand else [BUILD, *(args or ["--help"])])

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Leave the command that builds without a name, so that its usage reads `storm build RECIPE`."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == BUILD else name, command, rest


class _BuildContext(typer.Context):
    """Context of the command without a name."""

    @property
    def command_path(self) -> str:
        """The words that start the command, without the space before its name."""
        return super().command_path.rstrip()


class _BuildCommand(StormCommand):
    """The command that builds."""

    context_class = _BuildContext


Folder = Annotated[Path, typer.Argument(help="Folder of the data set.", show_default=False)]

app = typer.Typer(cls=_BuildGroup, rich_markup_mode="rich")


@app.callback()
def build() -> None:
    """Build a thought-video data set, show the progress of a build, or retry its rejected rows."""


@app.command(BUILD, cls=_BuildCommand, epilog=BUILD_EPILOG, hidden=True)
def build_data_set(
    recipe: Annotated[
        str, typer.Argument(help="YAML file, or the name of a recipe that comes with storm-hf.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Backbone that encodes the videos, instead of the recipe's.", show_default=False
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the data set, instead of the recipe's.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Number of datatrove tasks to split the build into.", show_default=False)
    ] = None,
    ray: Annotated[
        Path | None, typer.Option(help="YAML file: run the tasks on Ray, each with these resources.", exists=True)
    ] = None,
    slurm: Annotated[
        Path | None, typer.Option(help="YAML file: submit the tasks to SLURM with these settings.", exists=True)
    ] = None,
) -> None:
    """Build a thought-video data set from a recipe: questions about clips, and encoded videos that lead to their answers.

    Stop it at any time: the same command resumes. [bold]storm build status DIR[/bold] shows how far it is.
    """
    file = named_file(recipe, BUILD_RECIPES)
    with waiting(f"Reading {file}"):
        from storm_hf.builder import ThoughtsRecipe
        from storm_hf.builder.components import check_components

        settings = ThoughtsRecipe.read(file, output_dir=out, encoder_model=model)
        check_components(settings)
    if slurm is not None:
        from storm_hf.builder.engines import submit_to_slurm

        submit_to_slurm(settings, tasks or 1, read_yaml(slurm))
        return
    _summarize(settings, _build_with_progress(settings, workers, tasks, ray))


@app.command("status", cls=StormCommand, epilog=STATUS_EPILOG)
def show_status(
    folder: Folder,
    parameters: Annotated[bool, typer.Option("--parameters", help="Also print the parameters of each step.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a build: shards, rows, rejected rows by reason, rate and time left of each step.

    Nothing is written, so it can be used while the build runs.
    """
    from storm_hf.builder.status import build_status, parameters_page, status_table

    status = build_status(folder)
    if as_json:
        typer.echo(json.dumps(asdict(status) | {"folder": str(status.folder)}, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(status_table(status))
    if parameters:
        console.print(parameters_page(status))


@app.command("retry", cls=StormCommand, epilog=RETRY_EPILOG)
def retry(
    folder: Folder,
    reason: Annotated[str, typer.Option("--reason", help="Kind of rejection, as `storm build status` counts them.")],
) -> None:
    """Remove the shards with rows that were rejected for a reason, so that the next build tries these rows again.

    Rows that were rejected because reading took too long are tried again without this, once `reading.timeout_seconds` grows.
    """
    from storm_hf.builder.retry import retry_rows

    count = retry_rows(folder, reason)
    typer.echo(f"{count} rows will be tried again. Give the command that built {folder} once more.")


def _build_with_progress(
    recipe: "ThoughtsRecipe", workers: int, tasks: int | None, ray: Path | None
) -> "ThoughtsReport":
    """Build, with the table of `storm build status` on a terminal while it goes on."""
    from rich.console import Console
    from rich.live import Live

    print_message(f"Building {recipe.output_dir}...")
    silence_libraries()
    console = Console(stderr=True)
    table = Live(console=console, get_renderable=lambda: _table(recipe), refresh_per_second=1, transient=True)
    if not console.is_terminal:
        return _build(recipe, workers, tasks, ray)
    with table:
        return _build(recipe, workers, tasks, ray)


def _build(recipe: "ThoughtsRecipe", workers: int, tasks: int | None, ray: Path | None) -> "ThoughtsReport":
    """Build on this machine or on a Ray cluster."""
    if ray is not None:
        from storm_hf.builder.engines import build_with_ray

        return build_with_ray(recipe, tasks or 1, read_yaml(ray))
    if tasks is not None:
        from storm_hf.builder.engines import build_with_datatrove

        return build_with_datatrove(recipe, tasks)
    if workers > 1:
        from storm_hf.builder.engines import build_with_workers

        return build_with_workers(recipe, workers)
    from storm_hf.builder import ThoughtsBuilder

    return ThoughtsBuilder(recipe).build()


def _table(recipe: "ThoughtsRecipe") -> "RenderableType":
    from storm_hf.builder.status import build_status, status_table

    try:
        return status_table(build_status(recipe.output_dir))
    except DatasetError:  # nothing is there to look at yet
        return ""


def _summarize(recipe: "ThoughtsRecipe", report: "ThoughtsReport") -> None:
    """Print the table, the rejections and the command that trains on the data set."""
    from rich.console import Console

    from storm_hf.builder.status import build_status, status_table

    folder = recipe.output_dir
    Console(stderr=True).print(status_table(build_status(folder)))
    typer.echo(f"{sum(report.num_rows.values())} rows in {folder}: {report.num_rows}")
    if report.num_rejected:
        typer.echo(f"Rejected: {report.num_rejected}; {folder}/rejected.jsonl has the reasons.")
    places = shlex.join(["--model_name_or_path", recipe.encoder.model, "--dataset_name", str(folder)])
    typer.echo(f"Then:  storm align {places} --output_dir runs/align")
