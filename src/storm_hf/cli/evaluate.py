"""`storm evaluate`: a model on the published benchmarks, in variants that differ in nothing but how they think."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storm_hf.cli.errors import refuse_commas
from storm_hf.cli.options import BatchSize, Model, NumLatents, VideoBackend, by_default, intervention
from storm_hf.cli.output import given_command, print_message


if TYPE_CHECKING:
    from storm_hf.evaluation.harness.run import EvaluationRun
    from storm_hf.evaluation.judges import Judge


EPILOG = """Examples:

[bold]storm evaluate --model runs/answer --task mvbench --data-root data --limit 20[/bold]

[bold]storm evaluate --model runs/answer --task videomme --task mmvu --variant storm --variant direct --variant cot[/bold]

[bold]storm evaluate --model Qwen/Qwen3-VL-8B-Instruct --variant direct --variant cot --task videomme[/bold]

[bold]storm evaluate --model runs/answer --task videomme --num-processes 8[/bold]   on 8 GPUs

Finished parts are skipped when the same command is given again. The table goes to stdout, everything else to stderr. The numbers
are in OUT/report.json, and as a page in OUT/report.html."""


TASKS = ("videomme", "mvbench", "tempcompass", "mmvu")
VARIANTS = ("storm", "direct")
SCORERS = ("official", "lmms", "strict")
_WIDTH_OF_A_FILE = 120  # names of tasks are long


def _once_for_each(option: str, help_text: str, default: tuple[str, ...]) -> Any:
    """Declare a repeatable option."""
    return typer.Option(option, help=by_default(f"{help_text} Repeatable.", " ".join(default)), callback=refuse_commas)


Tasks = Annotated[
    list[str] | None,
    _once_for_each("--task", "Benchmark: videomme, videomme_w_subtitle, mvbench, tempcompass or mmvu.", TASKS),
]
Variants = Annotated[
    list[str] | None,
    _once_for_each(
        "--variant",
        "storm thinks in latents; direct answers at once and cot reasons in words, both without latents.",
        VARIANTS,
    ),
]
Scorers = Annotated[
    list[str] | None, _once_for_each("--scorer", "Rule by which answers are read: official, lmms or strict.", SCORERS)
]
Backbone = Annotated[str | None, typer.Option(help=by_default("Model of the variants direct and cot.", "the same"))]
Revision = Annotated[str | None, typer.Option(help=by_default("Branch, tag or commit of --model.", "main"))]
BackboneRevision = Annotated[str | None, typer.Option(help=by_default("Branch, tag or commit of --backbone.", "main"))]
DataRoot = Annotated[
    Path | None, typer.Option(help=by_default("Folder with a copy of the benchmarks.", "the Hub"), exists=True)
]
Latents = Annotated[
    str | None, intervention(by_default("Feed this in place of the latents of the variant storm.", "its own"))
]
FramesPerSecond = Annotated[
    float | None,
    typer.Option("--fps", min=0.001, help=by_default("Frames per second, up to --max-frames.", "spread evenly")),
]
NumProcesses = Annotated[
    int, typer.Option(min=1, help="Processes that share the questions, one for each GPU; the report is the same.")
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(
        "--judge", help=by_default("URL of an OpenAI-compatible server that marks what rules leave open.", "none")
    ),
]


def evaluate_model(
    model: Model,
    task: Tasks = None,
    variant: Variants = None,
    backbone: Backbone = None,
    revision: Revision = None,
    backbone_revision: BackboneRevision = None,
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run.")] = Path("runs", "evaluate"),
    limit: Annotated[int | None, typer.Option(min=1, help=by_default("Questions per task.", "all"))] = None,
    num_latents: NumLatents = None,
    latents: Latents = None,
    max_frames: Annotated[int, typer.Option(min=1, help="Maximum number of frames of a video.")] = 32,
    fps: FramesPerSecond = None,
    batch_size: BatchSize = 1,
    num_processes: NumProcesses = 1,
    scorer: Scorers = None,
    judge: JudgeUrl = None,
    judge_model: Annotated[str, typer.Option(help="The model, as that server calls it.")] = "gpt-4o",
    video_backend: VideoBackend = None,
) -> None:
    """Evaluate a model on Video-MME, MVBench, TempCompass and MMVU.

    Runs lmms-eval on its own tasks, then scores what it logged by each rule of the literature. Without --judge,
    the answers that a rule leaves open are counted in the table.
    """
    from storm_hf.evaluation.harness.benchmarks import tasks_of
    from storm_hf.evaluation.harness.run import EvaluationRun

    settings = {"num_latents": num_latents, "max_frames": max_frames, "fps": fps, "batch_size": batch_size}
    run = EvaluationRun(
        model=model,
        tasks=tuple(tasks_of(task or TASKS)),
        out=out,
        variants=tuple(variant or VARIANTS),  # type: ignore[arg-type]  # `evaluate` says what is no variant
        backbone=backbone,
        data_root=data_root,
        limit=limit,
        revision=revision,
        backbone_revision=backbone_revision,
        settings={**settings, "latents": latents, "video_backend": video_backend},
        num_processes=num_processes,
    )
    _answer(run)
    _report(run.out, tuple(scorer or SCORERS), None if judge is None else _judge(judge, judge_model, run.out))


def _answer(run: "EvaluationRun") -> None:
    """Run what is not finished, with a bar for each variant."""
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

        def show(variant: str, done: int, total: int) -> None:
            if variant not in bars:
                bars[variant] = progress.add_task(variant, total=total)
            progress.update(bars[variant], completed=done)

        evaluate(run, show)


def _judge(url: str, model: str, out: Path) -> "Judge":
    """A judge behind a server, whose answers are kept with the run. Its key is read from OPENAI_API_KEY."""
    from storm_hf.evaluation.judges import Judge
    from storm_hf.llm import Message, ServedChat

    chat = ServedChat(url, model)
    return Judge(f"{model} at {url}", lambda prompt: chat.complete([Message(prompt)]), out / "judge")


def _report(out: Path, scorers: tuple[str, ...], judge: "Judge | None") -> None:
    """Score the samples of the run again, write the report and show its table."""
    from rich.console import Console

    from storm_hf.evaluation.results import report_run, report_table

    table = report_table(report_run(out, scorers, judge, command=given_command()))
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)
    print_message(f"The report is {out / 'report.html'}; its numbers are in {out / 'report.json'}.")
