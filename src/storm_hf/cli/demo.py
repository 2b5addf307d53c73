"""`storm demo`: all of STORM on this machine, from rendered clips to a page that says whether it worked."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storm_hf.cli.errors import INTERRUPTED
from storm_hf.cli.options import DEMO_MODEL
from storm_hf.cli.output import print_message
from storm_hf.interventions.kind import InterventionKind
from storm_hf.worlds.registry import WORLD_NAMES


if TYPE_CHECKING:
    from rich.table import Table

    from storm_hf.demo import DemoRecipe, DemoReport


REPORT_PAGE = "report.html"
# The first that is missing names the extra that brings it; `demo` brings all.
_PACKAGES = ("jinja2", "psutil", "pyarrow", "datasets", "trl")
EPILOG = """Examples:

[bold]storm demo[/bold]   takes minutes; then read runs/demo/report.html

[bold]storm demo --backbone smollm2 --out runs/smollm2[/bold]   a language model that speaks; one to three hours

[bold]storm demo --world order --seed 7 --out runs/order[/bold]

[bold]storm demo --naive-targets --out runs/naive[/bold]   the failure that whitening prevents

Ctrl-C stops it after the running step; the same command continues where it stopped."""


def run_demo(
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder for clips, models and the report.")
    ] = Path("runs/demo"),
    world: Annotated[
        str, typer.Option(metavar=" | ".join(WORLD_NAMES), help="Synthetic task of the videos.")
    ] = "shuffle",
    backbone: Annotated[
        str, typer.Option(metavar="tiny | smollm2", help="Model: a random one, or a pretrained language model.")
    ] = "tiny",
    seed: Annotated[int, typer.Option(min=0, help="Seed of clips, weights and batches.")] = 0,
    naive_targets: Annotated[
        bool, typer.Option("--naive-targets", help="Do not whiten the targets, to see what goes wrong.")
    ] = False,
) -> None:
    """Train and test a tiny STORM on synthetic videos.

    Renders clips of a synthetic task, trains a model to think in latents beside
    baselines that do not, tests whether its answers come from its latents, and
    writes a page that explains the results.
    """
    from storm_hf.optional import require

    for package in _PACKAGES:  # before the import that needs them
        require(package)
    from storm_hf import demo

    recipe = demo.demo_recipe(world, seed, naive_targets, backbone)  # type: ignore[arg-type]  # checked there
    if backbone != "tiny":
        require("gguf")
    try:
        report = demo.run_demo(out=out, recipe=recipe)
    except KeyboardInterrupt as interrupt:
        print_message("Interrupted. Run the same command again to continue.")
        raise typer.Exit(INTERRUPTED) from interrupt
    _print_summary(report, recipe, out)


def _print_summary(report: "DemoReport", recipe: "DemoRecipe", out: Path) -> None:
    from rich.console import Console

    console = Console()
    title = f"{report.num_test} held-out {recipe.deep_clips} of the {report.world} world, chance {report.chance:.0%}"
    console.print(_variants(report, recipe, out, title), _interventions(report, recipe), sep="\n")
    typer.echo(f"Open {out / REPORT_PAGE}. Then:")
    for command in _next_commands(report, recipe, out):
        typer.echo(f"  {command}")


def _variants(report: "DemoReport", recipe: "DemoRecipe", out: Path, title: str) -> "Table":
    from rich.table import Table

    from storm_hf.demo.variants import TITLES

    table = Table("way of answering", title=title, title_justify="left")
    for column in ("accuracy", recipe.second_form, "forward passes"):
        table.add_column(column, justify="right")
    for name, (accuracy, asked_openly, passes) in _figures_of_variants(report, out).items():
        cells = (f"{accuracy:.1%}", "" if asked_openly is None else f"{asked_openly:.1%}", f"{passes:.0f}")
        table.add_row(TITLES[name], *cells, style="bold" if name == "storm" else "")
    return table


def _figures_of_variants(report: "DemoReport", out: Path) -> dict[str, tuple[float, float | None, float]]:
    """Collect accuracy, accuracy in the second form and passes of each variant, also of one that the report leaves out."""
    from storm_hf.atomic import read_json
    from storm_hf.demo import DemoFolder

    asked_openly = {} if report.open is None else report.open.arms
    figures = {name: (one.accuracy, asked_openly.get(name), one.forward_passes) for name, one in report.arms.items()}
    results = DemoFolder(out).variant("terse_chain") / "results.json"
    if results.is_file():
        terse = read_json(results)
        figures["terse_chain"] = (terse["accuracy"], terse["open"]["accuracy"], terse["forward_passes"])
    return figures


def _interventions(report: "DemoReport", recipe: "DemoRecipe") -> "Table":
    from rich.table import Table

    from storm_hf.demo.report_data import FOLLOWS_DONOR

    table = Table("STORM, fed", title="Do the latents matter?", title_justify="left")
    columns = [("accuracy", report.interventions)]
    if report.open is not None:
        columns.append((recipe.second_form, report.open.interventions))
    for title, _ in columns:
        table.add_column(title, justify="right")
    for kind in InterventionKind:
        if kind in report.interventions:
            table.add_row(kind.label, *(f"{measured[kind]:.1%}" for _, measured in columns))
    table.add_section()
    shares = (f"{measured[FOLLOWS_DONOR]:.1%}" for _, measured in columns)
    table.add_row("Another clip's: the answer is that clip's", *shares)
    return table


def _next_commands(report: "DemoReport", recipe: "DemoRecipe", out: Path) -> Iterator[str]:
    """Write what to do with the model: ask it, draw its latents, test them."""
    if shutil.which("storm") is None:
        yield f"source {shlex.quote(os.path.relpath(sys.prefix))}/bin/activate"
    model = "" if Path(report.checkpoint) == DEMO_MODEL else f" --model {shlex.quote(report.checkpoint)}"
    if clips := sorted((out / "data" / "videos" / "test" / "clips").glob(f"*-d{max(recipe.deep)}.mp4")):
        yield f'storm ask {shlex.quote(str(clips[0]))} "{_question_about(clips[0], recipe)}"{model} --latents zero'
    known = f"--model {shlex.quote(report.checkpoint)} --dataset {shlex.quote(str(out / 'data'))}"
    depths = " ".join(f"--depth {depth}" for depth in recipe.deep)
    yield f"storm imagine {known} --out runs/imagined"
    yield f"storm diagnose {known} {depths} --out runs/diagnosis"


def _question_about(clip: Path, recipe: "DemoRecipe") -> str:
    """Ask what the world asks about a clip, whose name holds seed and depth."""
    from storm_hf.worlds import make_world

    _, seed, depth = clip.stem.split("-")
    return make_world(recipe.world, **recipe.knobs).describe(int(seed), depth=int(depth.removeprefix("d"))).question
