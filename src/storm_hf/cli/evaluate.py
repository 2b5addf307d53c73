"""`storm evaluate`: a model on the published benchmarks, in arms that differ in nothing but how they think."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storm_hf.cli.ask import INTERVENTION
from storm_hf.cli.exits import given_command, tell
from storm_hf.cli.video_backend import VideoBackend


if TYPE_CHECKING:
    from storm_hf.evaluation.harness.run import EvaluationRun
    from storm_hf.evaluation.judges import Judge


EPILOG = """Examples:

[bold]storm evaluate --model runs/answer --tasks mvbench --data-root data --limit 20[/bold]

[bold]storm evaluate --model runs/answer --tasks videomme,mvbench,tempcompass,mmvu --arms storm,direct,cot[/bold]

[bold]storm evaluate --model Qwen/Qwen3-VL-8B-Instruct --arms direct,cot --tasks videomme[/bold]

Give the same command again if it was cut off: what is finished is not run again. The table goes to stdout, everything else to
stderr; the numbers lie in OUT/report.json, and to look at in OUT/report.html."""


_WIDTH_OF_A_FILE = 120  # names of tasks are long


def evaluate_model(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder or Hub name of a STORM or an adapter.", show_default=False)
    ],
    tasks: Annotated[
        str,
        typer.Option(
            help="Benchmarks, with commas between: videomme, videomme_w_subtitle, mvbench, tempcompass, mmvu."
        ),
    ] = "videomme,mvbench,tempcompass,mmvu",
    arms: Annotated[
        str,
        typer.Option(
            help="storm thinks in latents; direct answers at once and cot reasons in words, both without latents."
        ),
    ] = "storm,direct",
    backbone: Annotated[
        str | None, typer.Option(help="Model of the arms direct and cot.  [dim]\\[default: the same][/dim]")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of --model.  [dim]\\[default: main][/dim]")
    ] = None,
    backbone_revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of --backbone.  [dim]\\[default: main][/dim]")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with a copy of the benchmarks.  [dim]\\[default: the Hub][/dim]", exists=True),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs", "evaluate"),
    limit: Annotated[int | None, typer.Option(min=1, help="Questions per task.  [dim]\\[default: all][/dim]")] = None,
    num_latents: Annotated[
        int | None, typer.Option(min=0, help="Latent steps of the arm storm.  [dim]\\[default: the model's][/dim]")
    ] = None,
    latents: Annotated[
        str | None,
        typer.Option(
            **INTERVENTION,
            help="Feed this in place of the latents of the arm storm.  [dim]\\[default: its own][/dim]",
        ),
    ] = None,
    max_frames: Annotated[int, typer.Option(min=1, help="Most frames of a video.")] = 32,
    fps: Annotated[
        float | None,
        typer.Option(min=0.001, help="Frames per second, up to the most.  [dim]\\[default: spread evenly][/dim]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions that are answered together.")] = 1,
    scorer: Annotated[
        str, typer.Option(help="Rules by which answers are read, with commas between.")
    ] = "official,lmms,strict",
    judge: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible server that marks what rules leave open.  [dim]\\[default: none][/dim]"
        ),
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The model, as that server calls it.")] = "gpt-4o",
    video_backend: VideoBackend = None,
) -> None:
    """Evaluate a model on Video-MME, MVBench, TempCompass and MMVU.

    Runs lmms-eval on its own tasks, then scores what it logged by each rule of the literature. Without --judge none is asked
    about answers that a rule leaves open: the table counts them.
    """
    from storm_hf.evaluation.harness.benchmarks import tasks_of
    from storm_hf.evaluation.harness.run import EvaluationRun

    settings = {"num_latents": num_latents, "max_frames": max_frames, "fps": fps, "batch_size": batch_size}
    run = EvaluationRun(
        model=model,
        tasks=tuple(tasks_of(_names(tasks))),
        out=out,
        arms=tuple(_names(arms)),  # type: ignore[arg-type]  # `evaluate` says what is no arm
        backbone=backbone,
        data_root=data_root,
        limit=limit,
        revision=revision,
        backbone_revision=backbone_revision,
        settings={**settings, "latents": latents, "video_backend": video_backend},
    )
    _answer(run)
    _report(run.out, tuple(_names(scorer)), None if judge is None else _judge(judge, judge_model, run.out))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _answer(run: "EvaluationRun") -> None:
    """Run what is not finished, with a bar for each arm."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from storm_hf.evaluation.harness.run import evaluate

    columns: Any = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("answers"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, Any] = {}

        def show(arm: str, done: int, total: int) -> None:
            if arm not in bars:
                bars[arm] = progress.add_task(arm, total=total)
            progress.update(bars[arm], completed=done)

        evaluate(run, show)


def _judge(url: str, model: str, out: Path) -> "Judge":
    """A judge behind a server, whose answers are kept with the run. Its key is read from OPENAI_API_KEY."""
    from storm_hf.chat import Message, ServedChat
    from storm_hf.evaluation.judges import Judge

    chat = ServedChat(url, model)
    return Judge(f"{model} at {url}", lambda prompt: chat.complete([Message(prompt)]), out / "judge")


def _report(out: Path, scorers: tuple[str, ...], judge: "Judge | None") -> None:
    """Score the samples of the run again, write the report and show its table."""
    from rich.console import Console

    from storm_hf.evaluation.results import report_run, report_table

    table = report_table(report_run(out, scorers, judge, command=given_command()))
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)
    tell(f"The report is {out / 'report.html'}; its numbers are in {out / 'report.json'}.")
