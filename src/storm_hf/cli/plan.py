"""`storm plan`: what a recipe needs of a machine, before it runs."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storm_hf.cli.options import AsJson
from storm_hf.cli.shipped import TRAIN_RECIPES, named_file
from storm_hf.errors import ConfigurationError


if TYPE_CHECKING:
    from rich.table import Table

    from storm_hf.planning import Gpu, Plan


GIB = 2**30
EPILOG = """Examples:

[bold]storm plan lora_24gb_align[/bold]

[bold]storm plan paper_7b_align --num-processes 8 --zero 3 --gpu h100[/bold]

[bold]storm plan my_recipe.yaml --model checkpoints/backbone --prompt-tokens 8192 --json[/bold]

One step of the real model runs on tensors without data (storm_hf.planning.dry_run); what processes share is arithmetic
(storm_hf.planning.memory)."""
_HELD = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "communication": "exchanged between processes",
    "reference": "weights of the reference",
}
_STEP = {
    "pixels": "pixels of the batch",
    "vision": "most before the language model begins",
    "forward": "most in the forward pass",
    "activations": "  of it kept for the backward pass",
    "backward": "most in the backward pass",
    "rollouts": "most while roll-outs are sampled",
    "update": "update of the weights",
}


Zero = Annotated[
    int, typer.Option(help="ZeRO stage: 2 shards optimizer states and gradients, 3 also the weights; 0 none.")
]
GpuName = Annotated[
    str | None, typer.Option(help="Answer for this GPU, such as h100: does it fit, and how long does a step take.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Folder or Hub name of the backbone, in place of the recipe's.", show_default=False
    ),
]

PromptTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens of a prompt.  [dim]\\[default: what the clip gives][/dim]")
]
AnswerTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of an answer.  [dim]\\[default: max_completion_length, else 8][/dim]"),
]


def plan_recipe(
    recipe: Annotated[
        str,
        typer.Argument(help="Recipe of a trainer: a YAML file, or the name of one of storm-hf.", show_default=False),
    ],
    num_processes: Annotated[int, typer.Option(min=1, help="Processes, one for each GPU.")] = 1,
    zero: Zero = 0,
    prompt_tokens: PromptTokens = None,
    clip_size: Annotated[str, typer.Option(help="Width and height of the clips in pixels.")] = "640x360",
    answer_tokens: AnswerTokens = None,
    model: Model = None,
    gpu: GpuName = None,
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="Assumed share of the GPU's peak (MFU).")] = 0.4,
    as_json: AsJson = False,
) -> None:
    """Check whether a recipe fits a GPU: its parameters, memory and arithmetic.

    Reads the recipe and the backbone's configuration, and runs one step on tensors without data. Loads no weights.
    """
    if zero not in (0, 2, 3):
        raise ConfigurationError(f"Expected --zero 0, 2 or 3, got {zero}.")
    file = named_file(recipe, TRAIN_RECIPES)
    with _quiet():
        from storm_hf.optional import require

        for package in ("datasets", "trl", "peft"):
            require(package)
        from storm_hf import planning

        device = planning.find_gpu(gpu) if gpu else None
        assumptions = planning.Assumptions(
            sharing=planning.Sharing(num_processes, zero),
            clip_size=_size(clip_size),
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
        )
        with _status(file):
            plan = planning.plan_recipe(file, assumptions, model)
    if as_json:
        typer.echo(json.dumps(_as_dict(plan, device, mfu), indent=2))
    else:
        _print(plan, device, mfu)


def _status(recipe: Path) -> AbstractContextManager[Any]:
    """Show on a terminal that a step is being run, which takes seconds."""
    from rich.console import Console

    return Console(stderr=True).status(f"Running one step of {recipe.name} without data")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries remark about configurations and about each other off the output; DeepSpeed prints it there."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigurationError(f"Expected --clip-size as WIDTHxHEIGHT, such as 640x360, got {text!r}.")
    return int(width), int(height)


def _as_dict(plan: "Plan", device: "Gpu | None" = None, mfu: float = 0.4) -> dict[str, Any]:
    """A plan for programs: bytes, tokens, FLOPs."""
    parts = {name: asdict(part) for name, part in plan.parameters.by_part().items()}
    content: dict[str, Any] = {
        "recipe": str(plan.recipe.path),
        "backbone": plan.recipe.backbone,
        "stage": plan.recipe.stage,
        **asdict(plan.sharing),
        "tokens": {**asdict(plan.tokens), "video": plan.video_tokens},
        "parameters": {
            **parts,
            "total": plan.parameters.total,
            "trainable": plan.parameters.trainable,
            "lora": plan.adapter_parameters,
            "in_4bit": plan.weights.quantized,
        },
        "held_bytes": asdict(plan.held),
        "step_bytes": {**asdict(plan.step), "rollouts": plan.rollouts, "update": plan.update},
        "peak_bytes": plan.peak,
        "step_flops": plan.flops,
    }
    if device:
        content |= {"gpu": device.name, "gpu_memory_gib": device.memory_gib, "fits": device.fits(plan.peak)}
        content |= {"mfu": mfu, "step_seconds": plan.step_seconds(device.flops_per_second, mfu)}
    return content


def _print(plan: "Plan", device: "Gpu | None", mfu: float) -> None:
    from rich.console import Console

    from storm_hf.planning import verdict

    console = Console(highlight=False)
    console.print(_parameters(plan), _memory(plan), sep="\n")
    typer.echo(_sequence(plan))
    typer.echo(_work(plan, device, mfu))
    typer.echo(f"Peak:     {verdict(plan.peak, device)}")


def _parameters(plan: "Plan") -> "Table":
    from rich.table import Table

    stage = {"align": "Stage I", "answer": "Stage II", "grpo": "reinforcement"}[plan.recipe.stage]
    table = Table("parameters, millions", title=f"{plan.recipe.backbone}, {stage}", title_justify="left")
    table.add_column("all", justify="right")
    table.add_column("trained", justify="right")
    for name, part in plan.parameters.by_part().items():
        tied = " (tied to the embeddings)" if name == "head" and plan.parameters.is_head_tied else ""
        table.add_row(name + tied, _millions(part.total), _millions(part.trainable))
    table.add_section()
    table.add_row("total", _millions(plan.parameters.total), _millions(plan.parameters.trainable), style="bold")
    if plan.adapter_parameters:
        table.add_row("  of them LoRA", _millions(plan.adapter_parameters), _millions(plan.adapter_parameters))
    if plan.weights.quantized:
        table.add_row("  of them in 4 bits", _millions(plan.weights.quantized), _millions(0))
    return table


def _memory(plan: "Plan") -> "Table":
    from rich.table import Table

    sharing = plan.sharing
    among = {0: "", 2: ", ZeRO-2", 3: ", ZeRO-3"}[sharing.zero_stage]
    plural = "process" if sharing.num_processes == 1 else "processes"
    title = f"Memory of each of {sharing.num_processes} {plural}{among}"
    table = Table("held", title=title, title_justify="left")
    table.add_column("GiB", justify="right")
    for name, words in _HELD.items():
        _add(table, words, getattr(plan.held, name))
    table.add_section()
    for name, words in _STEP.items():
        _add(table, words, getattr(plan if name in ("update", "rollouts") else plan.step, name))
    table.add_section()
    table.add_row("peak: not all at the same time", _gib(plan.peak), style="bold")
    return table


def _add(table: "Table", words: str, num_bytes: int) -> None:
    """Add a row, unless it would show zero."""
    if _gib(num_bytes) != _gib(0):
        table.add_row(words, _gib(num_bytes))


def _sequence(plan: "Plan") -> str:
    tokens, rows = plan.tokens, plan.recipe["per_device_train_batch_size"]
    row = f"{tokens.prompt} prompt ({plan.video_tokens} of them video) + {tokens.latents} latents + {tokens.answer} answer"
    return f"Sequence: {row} = {tokens.total} tokens, {rows} at a time"


def _work(plan: "Plan", device: "Gpu | None", mfu: float) -> str:
    work = f"Step:     {plan.flops / 1e12:.1f} TFLOPs per process"
    if device is None:
        return work
    return f"{work}, {plan.step_seconds(device.flops_per_second, mfu):.2f} s at {mfu:.0%} of {device.name}"


def _millions(number: int) -> str:
    return f"{number / 1e6:,.1f}"


def _gib(number: int) -> str:
    return f"{number / GIB:.2f}"
