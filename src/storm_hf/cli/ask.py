"""`storm ask`: questions about one clip, and whether the latents matter for the answer to one."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storm_hf.cli.options import (
    BatchSize,
    DemoModel,
    MaxNewTokens,
    NumLatents,
    VideoBackend,
    demo_model,
    intervention,
    load_model,
)
from storm_hf.cli.output import print_message, printable
from storm_hf.errors import ConfigurationError, PromptError
from storm_hf.interventions.kind import InterventionKind


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from storm_hf.evaluation.batch import Answer
    from storm_hf.evaluation.question_file import WrittenQuestion
    from storm_hf.evaluation.single import ClipQuestion
    from storm_hf.model import StormForConditionalGeneration
    from storm_hf.video import VideoClip


EPILOG = """Examples:

[bold]storm ask clip.mp4 "What happens next?"[/bold]

[bold]storm ask clip.mp4 "Where is the ball?" -o left -o middle -o right[/bold]

[bold]storm ask clip.mp4 "Where is the ball?" --latents zero --show[/bold]

[bold]storm ask clip.mp4 --questions questions.txt[/bold]   one a line; the clip is read once

The answer alone goes to stdout, everything else to stderr."""


_CAUTION = "One question proves little: `storm diagnose` asks many."
Latents = Annotated[
    str | None,
    intervention(
        "Also answer with this in place of the model's own latents, or with them alone, without the clip. "
        "One question proves little; [bold]storm diagnose[/bold] asks many."
    ),
]


Questions = Annotated[
    Path | None,
    typer.Option(
        help="File with a question in each line, or with a JSON object with `question` and `options` if it ends in .jsonl. "
        "The clip is read once for all of them.",
        show_default=False,
    ),
]


def ask_clip(
    clip: Annotated[str, typer.Argument(help="Video file.", show_default=False)],
    question: Annotated[str | None, typer.Argument(help="What you want to know about it.", show_default=False)] = None,
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    questions: Questions = None,
    model: DemoModel = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A possible answer; repeatable, two or more.")
    ] = None,
    num_latents: NumLatents = None,
    latents: Latents = None,
    show: Annotated[
        bool, typer.Option("--show", help="Describe each latent, and the known state nearest to it.")
    ] = False,
    max_new_tokens: MaxNewTokens = 64,
    batch_size: BatchSize = 8,
    as_json: Annotated[bool, typer.Option("--json", help="With --questions: print JSON.")] = False,
    video_backend: VideoBackend = None,
) -> None:
    """Ask a model about a video clip.

    Reads the clip, thinks in latents, and prints the answer; with [bold]--questions[/bold], the answer to each.
    """
    _refuse_unquoted(clip, question, rest or [])
    if questions is not None:
        _refuse_beside_questions(QUESTION=question, **{"--option": option, "--latents": latents, "--show": show})
        _ask_all(clip, questions, model, num_latents, max_new_tokens, batch_size, as_json)
        return
    question = _check_single(question, as_json)
    _check(clip, question, option or ())  # before the model is loaded, which takes longer
    folder = model or demo_model()
    network, processor = load_model(folder)
    from storm_hf.evaluation.single import ClipQuestion, ask, read_clip

    video = read_clip(clip, processor)
    _print_caveats(network.config, video)
    asked = ClipQuestion(video, _readable(question), [_readable(text) for text in option or ()])
    answer = ask(network, processor, asked, num_latents=num_latents, max_new_tokens=max_new_tokens)
    _print_answer(answer, asked)
    _print_length(answer, network.config.num_latents)
    if latents is not None:
        _compare(network, processor, asked, answer, InterventionKind(latents), max_new_tokens)
    if show:
        _show_latents(answer, folder)


def _refuse_unquoted(clip: str, question: str | None, rest: Sequence[str]) -> None:
    """Refuse a question whose words the shell has split."""
    if rest:
        whole = shlex.join([clip, " ".join([question or "", *rest])])
        raise PromptError(f"Expected the question in quotes, got {1 + len(rest)} words: storm ask {whole}")


def _check_single(question: str | None, as_json: bool) -> str:
    """Make sure that there is a question, and nothing that is for a file of them."""
    if question is None:
        raise PromptError("Expected a question behind the clip, or a file of them: --questions FILE.")
    if as_json:
        raise ConfigurationError(
            "`--json` prints the answers to many questions. Give --questions FILE, or leave it out."
        )
    return question


def _print_length(answer: "Answer", bound: int) -> None:
    """Print for how many latents a model that halts has thought."""
    if answer.num_latents is not None:
        steps = "latent" if answer.num_latents == 1 else "latents"
        print_message(f"It thought for {answer.num_latents} {steps}, of {bound} at most.")


def _refuse_beside_questions(**given: object) -> None:
    """Refuse what belongs to one question.

    Raises:
        ConfigurationError: If something of that is given.
    """
    if names := [name for name, value in given.items() if value]:
        raise ConfigurationError(
            f"`{names[0]}` is for one question, and --questions for many. Leave one of the two out; options of many questions "
            "stand in a .jsonl file."
        )


def _ask_all(
    clip: str,
    file: Path,
    model: str | None,
    num_latents: int | None,
    max_new_tokens: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Ask the questions of a file about one clip, and print the answers in their order."""
    from storm_hf.evaluation.question_file import read_question_file
    from storm_hf.video.source import check_file

    check_file(Path(clip))
    asked = read_question_file(file)
    network, processor = load_model(model or demo_model())
    from storm_hf.evaluation.session import StormSession
    from storm_hf.evaluation.single import ClipQuestion, read_clip

    video = read_clip(clip, processor)
    _print_caveats(network.config, video)
    answers = StormSession(network, processor).ask_all(
        [ClipQuestion(video, each.text, each.options) for each in asked],
        num_latents=num_latents,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    _print_answers(asked, answers, as_json)


def _print_answers(asked: "Sequence[WrittenQuestion]", answers: "Sequence[Answer]", as_json: bool) -> None:
    """Print a table on a terminal, and one line for each question elsewhere."""
    if as_json:
        for each, answer in zip(asked, answers, strict=True):
            options = {"options": list(each.options), "choice": answer.choice} if each.options else {}
            typer.echo(json.dumps({"question": each.text, "answer": answer.text, **options}, ensure_ascii=False))
    elif sys.stdout.isatty():
        print_table(asked, answers)
    else:
        for answer in answers:
            typer.echo(" ".join(answer.text.split()))


def print_table(asked: "Sequence[WrittenQuestion]", answers: "Sequence[Answer]") -> None:
    """Print questions and answers side by side, whatever they contain."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("question", "answer", show_lines=True)
    for each, answer in zip(asked, answers, strict=True):
        table.add_row(Text(printable(each.text)), Text(printable(answer.text), style="bold green"))
    Console().print(table)


def _check(clip: str, question: str, options: Sequence[str]) -> None:
    """Refuse what no model could answer.

    Raises:
        DatasetError: If an option is given twice, or there are too many.
        PromptError: If the question is empty, or there is only one option.
        VideoReadError: If there is no such file.
    """
    if not question.strip():
        raise PromptError("Expected a question but got an empty text.")
    if len(options) == 1:
        raise PromptError(f"Expected two options or more but got only {options[0]!r}. Give -o once for each.")
    from storm_hf.inputs.wording import check_options
    from storm_hf.video.source import check_file

    if options:
        check_options(options)

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
