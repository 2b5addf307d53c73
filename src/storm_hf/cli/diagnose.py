"""`storm diagnose`: do the latents of a model matter? One page, one record, one sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storm_hf.cli.options import BatchSize, Dataset, MaxNewTokens, Model, VideoBackend, by_default, load_model
from storm_hf.cli.output import given_command, print_message, progress_bar, waiting


if TYPE_CHECKING:
    from rich.table import Table
    from transformers import ProcessorMixin

    from storm_hf.diagnostics.questions import Questions
    from storm_hf.diagnostics.record import Diagnosis
    from storm_hf.model import StormForConditionalGeneration


NUM_PICTURED = 3  # questions whose latents are drawn
_TESTS = {
    "states": "the probe of states",
    "targets": "the true thoughts",
    "simulator": "the edits of a state",
}  # by what they need
FEWEST_KNOWN = 8  # further questions, whose true thoughts the latents are compared with
EPILOG = """Examples:

[bold]storm diagnose --model runs/demo/storm --dataset runs/demo/data --depth 5 --depth 6 --out runs/diagnosis[/bold]

[bold]storm diagnose -m me/my-storm -d me/storm-thoughts --limit 500 --out runs/diagnosis[/bold]

The verdict goes to stdout, everything else to stderr."""

Out = Annotated[Path, typer.Option(file_okay=False, help="Folder for the page and the record.", show_default=False)]
Limit = Annotated[
    int | None, typer.Option(min=2, help=by_default("Maximum number of questions, sampled at random.", "all"))
]
World = Annotated[str | None, typer.Option(help=by_default("Synthetic task (world) of the clips.", "the data set's"))]


def diagnose_model(
    model: Model,
    dataset: Dataset,
    out: Out,
    split: Annotated[str, typer.Option(help="Split of the data set, not seen in training.")] = "test",
    limit: Limit = None,
    depth: Annotated[list[int] | None, typer.Option("--depth", help="Filter by number of steps; repeatable.")] = None,
    world: World = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of questions, donors, noise and intervals.")] = 0,
    batch_size: BatchSize = 64,
    max_new_tokens: MaxNewTokens = 8,
    video_backend: VideoBackend = None,
) -> None:
    """Test whether a model uses its latents.

    Replaces them in a dozen ways, compares the answers, and examines what the
    latents hold.
    """
    with waiting(f"Reading {dataset}"):
        from storm_hf.diagnostics.page import write_diagnosis
        from storm_hf.diagnostics.questions import check_questions, read_questions
        from storm_hf.optional import require

        for package in ("jinja2", "datasets"):  # before the model is loaded
            require(package)
        check_questions(dataset, split=split, depths=depth or ())
    network, processor = load_model(model)
    questions = read_questions(
        dataset,
        num_latents=network.config.num_latents,
        hidden_size=network.config.hidden_size,
        split=split,
        limit=limit,
        depths=depth or (),
        world=world,
        checkpoint=model,
        seed=seed,
    )
    names = {"model": model, "dataset": dataset, "split": split, "command": given_command()}
    settings = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "seed": seed, "names": names}
    found = _diagnose(network, processor, questions, settings)
    page = write_diagnosis(out, found)  # before the pictures: what was measured is not lost with them
    pictures = _pictures(network, processor, questions, model, dataset)
    _print(found, page if pictures is None else write_diagnosis(out, found, pictures))


def _diagnose(
    network: "StormForConditionalGeneration",
    processor: "ProcessorMixin",
    questions: "Questions",
    settings: Mapping[str, Any],
) -> "Diagnosis":
    """Ask under each intervention, with a bar, after a note on each test that the data do not allow."""
    from storm_hf.diagnostics.diagnosis import diagnose

    for name, reason in questions.absent.items():
        print_message(f"Skipped {_TESTS[name]}. {reason}")
    with progress_bar("Asking under each intervention", 2 * len(questions.rows)) as count_up:
        return diagnose(network, processor, questions, **settings, report=count_up)


def _pictures(
    network: "StormForConditionalGeneration",
    processor: "ProcessorMixin",
    questions: "Questions",
    model: str,
    dataset: str,
) -> Any:
    """Render the latents, if the model has a decoder and the rows have thought videos; else None."""
    from storm_hf.diagnostics.latent_decoder import ThoughtDecoder
    from storm_hf.diagnostics.latent_decoder.renderer import LatentRenderer
    from storm_hf.diagnostics.questions import find_statistics
    from storm_hf.target_trajectory import TargetTrajectory

    decoder, statistics = ThoughtDecoder.load(Path(model)), find_statistics(dataset, model)
    pictured, known = questions.rows[:NUM_PICTURED], questions.rows[NUM_PICTURED:]
    if decoder is None or statistics is None or not all(row.get("thought_video") for row in questions.rows):
        return None
    if len(known) < FEWEST_KNOWN:
        print_message(
            f"No pictures of the latents: they are compared with {FEWEST_KNOWN} other questions, and there are {len(known)}."
        )
        return None
    trajectory = TargetTrajectory.load(statistics).with_num_latents(network.config.num_latents)
    renderer = LatentRenderer(network, processor, decoder, trajectory)
    return renderer.pictures(pictured, known)


def _print(found: "Diagnosis", page: Path) -> None:
    from rich.console import Console

    Console(stderr=True).print(_table(found))
    if unreadable := found.effects["own"].unreadable:
        print_message(f"{unreadable:.1%} of the model's own answers name none of the options, and count as wrong.")
    if (halting := found.halting) is not None:
        longer = halting.depth_correlation
        print_message(
            f"Left to itself, it thinks for {halting.mean_latents:.2f} of {found.num_latents} latents, with an accuracy of "
            f"{halting.accuracy:.1%}."
            + ("" if longer is None else f" Rank correlation with the steps that a question needs: {longer:.2f}.")
        )
    print_message(f"The page is {page}.")
    typer.echo(f"{found.verdict.headline} {found.verdict.sentence}")


def _table(found: "Diagnosis") -> "Table":
    """Accuracy under each intervention, narrow enough for a terminal of 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{found.num_questions} questions about {found.num_clips} clips"
    if found.chance is not None:
        title += f", chance {found.chance:.1%}"
    table = Table(
        "latents replaced by",
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for column in ("accuracy", "95% interval", "unread", "changed", "donor's", "KL"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, effect in found.effects.items():
        table.add_row(
            effect.label,
            f"{effect.accuracy.mean:.1%}",
            f"{100 * effect.accuracy.low:.1f} to {effect.accuracy.high:.1%}",
            f"{effect.unreadable:.1%}",
            f"{effect.changed.mean:.1%}",
            "" if effect.follows_donor is None else f"{effect.follows_donor.mean:.1%}",
            f"{effect.divergence.mean:.2f}",
            style="bold" if name == "own" else "",
        )
    return table
