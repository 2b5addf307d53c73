"""`storm language`: does a model that thinks in latents still speak?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storm_hf.cli.options import BatchSize, MaxNewTokens, by_default, load_any_model
from storm_hf.cli.output import print_message, printable, progress_bar


if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from storm_hf.evaluation.language import LanguageMeasure, LanguageReport


EPILOG = """Examples:

[bold]storm language --model runs/answer --before Qwen/Qwen2.5-VL-7B-Instruct --out runs/language.json[/bold]

[bold]storm language --model Qwen/Qwen2.5-VL-7B-Instruct --out runs/before.json[/bold]   measured once

[bold]storm language --model runs/answer --before runs/before.json --out runs/language.json[/bold]   and compared with

The last line goes to stdout, everything else to stderr."""

Model = Annotated[
    str, typer.Option("--model", "-m", help="Folder or Hub name of a STORM or a plain model.", show_default=False)
]
Before = Annotated[
    str | None,
    typer.Option(help=by_default("The model before training, or a file that this command wrote for it.", "none")),
]
Texts = Annotated[
    Path | None,
    typer.Option(help=by_default("Plain text, its paragraphs separated by blank lines.", "the package's own")),
]
Prompts = Annotated[Path | None, typer.Option(help=by_default("Plain prompts, one a line.", "the package's own"))]
Out = Annotated[Path, typer.Option(dir_okay=False, help="JSON file for the record.", show_default=False)]


def measure_model(
    model: Model,
    out: Out,
    before: Before = None,
    texts: Texts = None,
    prompts: Prompts = None,
    max_new_tokens: MaxNewTokens = 48,
    batch_size: BatchSize = 8,
) -> None:
    """Measure what is left of a model's language: perplexity of plain text, and answers to plain prompts.

    Both without latents and without a clip.
    """
    from storm_hf.atomic import write_atomically
    from storm_hf.evaluation.language import LanguageReport, read_held_out_prompts, read_held_out_texts
    from storm_hf.evaluation.language.texts import read_prompts, read_texts

    given = (
        read_held_out_texts() if texts is None else read_texts(texts),
        read_held_out_prompts() if prompts is None else read_prompts(prompts),
    )
    earlier = None if before is None else _earlier(before, *given, max_new_tokens, batch_size)
    found = _measure(model, *given, max_new_tokens, batch_size)
    report = None if earlier is None else LanguageReport(earlier, found)
    write_atomically(out, (report or found).to_json())
    if report is None:
        typer.echo(f"Perplexity {found.perplexity:.2f}. {len(found.answers)} answers are in {out}.")
    else:
        _print(report, out)


def _earlier(
    before: str, texts: "Sequence[str]", prompts: "Sequence[str]", max_new_tokens: int, batch_size: int
) -> "LanguageMeasure":
    """Read the record of the model before, or measure it."""
    if not Path(before).is_file():
        return _measure(before, texts, prompts, max_new_tokens, batch_size)
    from storm_hf.evaluation.language import LanguageMeasure
    from storm_hf.evaluation.language.report import fingerprint

    found = LanguageMeasure.from_json(Path(before).read_text(encoding="utf-8"))
    found.require(texts=fingerprint(texts), prompts=tuple(prompts), max_new_tokens=max_new_tokens)
    return found


def _measure(
    name: str, texts: "Sequence[str]", prompts: "Sequence[str]", max_new_tokens: int, batch_size: int
) -> "LanguageMeasure":
    from storm_hf.evaluation.language import measure_language

    network, processor = load_any_model(name)
    with progress_bar(f"Reading {len(texts)} texts, asking {len(prompts)} prompts", len(prompts)) as count_up:
        return measure_language(
            network,
            processor,
            texts=texts,
            prompts=prompts,
            name=name,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            on_batch=count_up,
        )


def _print(report: "LanguageReport", out: Path) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    console.print(_table(report))
    if any(not pair.is_same for pair in report.pairs):
        console.print(_differences(report))
    print_message(f"All answers are in {out}.")
    kept, num_prompts = report.kept, len(report.before.prompts)
    typer.echo(
        f"Perplexity {report.before.perplexity:.2f} before, {report.after.perplexity:.2f} after ({report.perplexity_ratio - 1:+.1%}). "
        f"{round(kept.mean * num_prompts)} of {num_prompts} prompts are answered as before "
        f"(95% interval {kept.low:.1%} to {kept.high:.1%})."
    )


def _table(report: "LanguageReport") -> "Table":
    from rich.table import Table

    table = Table("", title="Language without latents", title_justify="left")
    for column in ("model", "perplexity", "answered as before"):
        table.add_column(column, justify="left" if column == "model" else "right")
    kept = report.kept
    share = f"{kept.mean:.1%} ({kept.low:.1%} to {kept.high:.1%})"
    table.add_row("before", printable(report.before.model), f"{report.before.perplexity:.2f}", "")
    table.add_row("after", printable(report.after.model), f"{report.after.perplexity:.2f}", share)
    return table


def _differences(report: "LanguageReport") -> "Table":
    """Tabulate the answers that differ, as text without markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table("prompt", "before", "after", title="Answers that differ", title_justify="left", show_lines=True)
    for pair in report.pairs:
        if not pair.is_same:
            table.add_row(*(Text(printable(text)) for text in (pair.prompt, pair.before, pair.after)))
    return table
