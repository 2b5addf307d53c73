"""`storm demo`: all of STORM on this machine, from rendered clips to a page that says whether it worked."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storm_hf.cli.exits import INTERRUPTED, tell


if TYPE_CHECKING:
    from rich.table import Table

    from storm_hf.demo.record import DemoReport


REPORT_PAGE = "report.html"
# The first that is missing names the extra that brings it; `demo` brings all.
_PACKAGES = ("jinja2", "psutil", "pyarrow", "datasets", "trl")
_INTERVENTIONS = {
    "none": "its own",
    "zero": "zeros",
    "noise": "noise",
    "mean": "their mean",
    "oracle": "the true targets",
}
EPILOG = """Examples:

[bold]storm demo[/bold]   takes minutes; then read runs/demo/report.html

[bold]storm demo --world order --seed 7 --out runs/order[/bold]

[bold]storm demo --naive-targets --out runs/naive[/bold]   the failure that whitening prevents

Ctrl-C stops it after the running step; the same command continues where it stopped."""


class WorldName(StrEnum):
    """The worlds, as an option; `storm_hf.worlds` is loaded only when a verb runs."""

    shuffle = "shuffle"
    bounce = "bounce"
    order = "order"
    lattice = "lattice"


def run_demo(
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder for clips, models and the report.")
    ] = Path("runs/demo"),
    world: Annotated[WorldName, typer.Option(help="What the drawn videos show.")] = WorldName.shuffle,
    seed: Annotated[int, typer.Option(min=0, help="Draws clips, weights and batches.")] = 0,
    naive_targets: Annotated[
        bool, typer.Option("--naive-targets", help="Do not whiten the targets, to see what goes wrong.")
    ] = False,
) -> None:
    """Train and question a tiny STORM on drawn videos.

    Renders a small world to video files, trains a model to think in latent
    video beside controls that do not, tests whether its answers come from its
    latents, and writes a page that explains all of it.
    """
    from storm_hf.optional import require

    for package in _PACKAGES:  # before the import that needs them
        require(package)
    from storm_hf import demo

    try:
        report = demo.run_demo(out=out, world=world.value, seed=seed, naive_targets=naive_targets)
    except KeyboardInterrupt as interrupt:
        tell("Interrupted. Run the same command again to continue.")
        raise typer.Exit(INTERRUPTED) from interrupt
    _print_summary(report, out)


def _print_summary(report: "DemoReport", out: Path) -> None:
    from rich.console import Console

    console = Console()
    console.print(_arms(report), _interventions(report), sep="\n")
    typer.echo(f"Model:  {report.checkpoint}")
    typer.echo(f"Report: {out / REPORT_PAGE}")


def _arms(report: "DemoReport") -> "Table":
    from rich.table import Table

    title = f"{report.num_test} held-out clips of the {report.world} world, chance {report.chance:.0%}"
    table = Table("way of answering", title=title, title_justify="left")
    for column in ("right", "forward passes", "ms per answer"):
        table.add_column(column, justify="right")
    for name, arm in report.arms.items():
        cells = (f"{arm.accuracy:.1%}", f"{arm.forward_passes:.1f}", f"{1000 * arm.seconds_per_answer:.0f}")
        table.add_row(name.replace("_", " "), *cells, style="bold" if name == "storm" else "")
    return table


def _interventions(report: "DemoReport") -> "Table":
    from rich.table import Table

    table = Table("STORM is fed, for its latents", title="Do the latents matter?", title_justify="left")
    table.add_column("right", justify="right")
    for name, words in _INTERVENTIONS.items():
        table.add_row(words, f"{getattr(report.interventions, name):.1%}")
    table.add_section()
    table.add_row("another clip's: the answer is that clip's", f"{report.interventions.swap_follows_donor:.1%}")
    return table
