"""`storm ask`: one question about one clip, and whether the latents matter for its answer."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storm_hf.cli.options import (
    DemoModel,
    MaxNewTokens,
    NumLatents,
    VideoBackend,
    demo_model,
    intervention,
    load_model,
)
from storm_hf.cli.output import print_message, printable
from storm_hf.errors import PromptError
from storm_hf.interventions.kind import InterventionKind


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from storm_hf.evaluation.batch import Answer
    from storm_hf.evaluation.single import ClipQuestion
    from storm_hf.model import StormForConditionalGeneration
    from storm_hf.video import VideoClip


EPILOG = """Examples:

[bold]storm ask clip.mp4 "What happens next?"[/bold]

[bold]storm ask clip.mp4 "Where is the ball?" -o left -o middle -o right[/bold]

[bold]storm ask clip.mp4 "Where is the ball?" --latents zero --show[/bold]

The answer alone goes to stdout, everything else to stderr."""


_CAUTION = "One question proves little: `storm diagnose` asks many."
Latents = Annotated[
    str | None,
    intervention(
        "Also answer with this in place of the model's own latents, or with them alone, without the clip. "
        "One question proves little; [bold]storm diagnose[/bold] asks many."
    ),
]


def ask_clip(
    clip: Annotated[str, typer.Argument(help="Video file.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What you want to know about it.", show_default=False)],
    model: DemoModel = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A possible answer; give two or more.")
    ] = None,
    num_latents: NumLatents = None,
    latents: Latents = None,
    show: Annotated[
        bool, typer.Option("--show", help="Describe each latent, and the known state nearest to it.")
    ] = False,
    max_new_tokens: MaxNewTokens = 64,
    video_backend: VideoBackend = None,
) -> None:
    """Ask a model about a video clip.

    Reads the clip, thinks in latents, and prints the answer.
    """
    _check(clip, question, option or ())  # before the model is loaded, which takes longer
    folder = model or demo_model()
    network, processor = load_model(folder)
    from storm_hf.evaluation.single import ClipQuestion, ask, read_clip

    video = read_clip(clip, processor)
    _print_caveats(network.config, video)
    asked = ClipQuestion(video, _readable(question), [_readable(text) for text in option or ()])
    answer = ask(network, processor, asked, num_latents=num_latents, max_new_tokens=max_new_tokens)
    _print_answer(answer, asked)
    if answer.num_latents is not None:
        steps = "latent" if answer.num_latents == 1 else "latents"
        print_message(f"It thought for {answer.num_latents} {steps}, of {network.config.num_latents} at most.")
    if latents is not None:
        _compare(network, processor, asked, answer, InterventionKind(latents), max_new_tokens)
    if show:
        _show_latents(answer, folder)


def _check(clip: str, question: str, options: Sequence[str]) -> None:
    """Refuse what no model could answer.

    Raises:
        PromptError: If the question is empty, or there is only one option.
        VideoReadError: If there is no such file.
    """
    if not question.strip():
        raise PromptError("Expected a question but got an empty text.")
    if len(options) == 1:
        raise PromptError(f"Expected two options or more but got only {options[0]!r}. Give -o once for each.")
    from storm_hf.video.source import check_file

    check_file(Path(clip))


def _readable(argument: str) -> str:
    """Replace bytes of a command line that are no text, so that they can be tokenized."""
    return argument.encode(errors="surrogateescape").decode(errors="replace")


def _print_caveats(config: "PreTrainedConfig", clip: "VideoClip") -> None:
    from storm_hf.hub.card_metadata import worlds_only

    if worlds := worlds_only(getattr(config, "trained_on", None)):
        names = " and ".join(f"`{world}`" for world in worlds)
        plural = "worlds" if len(worlds) > 1 else "world"
        print_message(
            f"This model has only ever seen the {names} {plural} (tiny drawn videos): its answer about a real clip is a "
            "guess."
        )
    if clip.num_broken:
        num_repeated = clip.num_asked - clip.num_decoded
        print_message(
            f"The clip is damaged: {num_repeated} of {clip.num_asked} frames repeat their nearest good neighbour."
        )


def _print_answer(answer: "Answer", question: "ClipQuestion") -> None:
    from rich.console import Console
    from rich.text import Text

    if sys.stdout.isatty():
        Console().print(Text(printable(answer.text), style="bold green"))
    else:
        typer.echo(answer.text)
    if not answer.text:
        print_message("The model ended its turn without text.")
    elif question.options and answer.choice is None:
        print_message("The answer names none of the options.")


def _compare(
    model: "StormForConditionalGeneration",
    processor: "ProcessorMixin",
    question: "ClipQuestion",
    own: "Answer",
    kind: InterventionKind,
    max_new_tokens: int,
) -> None:
    """Ask again under an intervention, and print both answers."""
    from storm_hf.evaluation.single import ask_with_replaced_latents

    other = ask_with_replaced_latents(model, processor, question, own, kind, max_new_tokens=max_new_tokens)
    comparison = (
        f"the same: {other.text!r}" if other.text == own.text else f"another: {other.text!r} instead of {own.text!r}"
    )
    print_message(f"With {kind.phrase}, the answer is {comparison}. {_CAUTION}")


def _show_latents(answer: "Answer", checkpoint: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from storm_hf.evaluation.thought_gallery import Gallery, describe_latents

    if answer.latents is None:
        print_message("There are no latents to show: this answer was given without any.")
        return
    gallery = Gallery.load(checkpoint)
    columns = ["latent", "norm", "cosine to previous"] + (["nearest state", "similarity"] if gallery else [])
    table = Table(*columns, title="What the model thought", title_justify="left")
    for number, step in enumerate(describe_latents(answer.latents, gallery), start=1):
        cells = [str(number), f"{step.norm:.2f}", _decimal(step.cosine_to_previous)]
        table.add_row(*cells, *([step.state, _decimal(step.similarity)] if gallery else []))
    Console(stderr=True).print(table)


def _decimal(number: float | None) -> str:
    return "-" if number is None else f"{number:+.2f}"
