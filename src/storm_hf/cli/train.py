"""`storm align`, `storm answer`, `storm grpo` and `storm run`: start the training scripts, with every argument of theirs and of accelerate."""

import os
import runpy
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from storm_hf.cli.errors import DEBUG, INTERRUPTED, StormCommand
from storm_hf.cli.output import print_message, waiting
from storm_hf.cli.script_help import argument_table
from storm_hf.cli.shipped import ACCELERATE_CONFIGS, TRAIN_RECIPES, named_file, names_in, shipped
from storm_hf.errors import ConfigurationError


if TYPE_CHECKING:
    from storm_hf.curriculum.schedule import StageKind

Group = list[str]  # an option and its values
ALIGN_EPILOG = """Examples:

[bold]storm align --config lora_24gb_align --dataset_name me/storm-thoughts[/bold]   a recipe that comes with storm-hf

[bold]storm align --config mine.yaml --num_processes 8 --accelerate_config zero3[/bold]   options of accelerate launch, on 8 GPUs"""
ANSWER_EPILOG = """Examples:

[bold]storm answer --config lora_24gb_answer --dataset_name me/storm-thoughts[/bold]   from what Stage I saved

[bold]storm answer --config mine.yaml --num_latents 0[/bold]   plain fine-tuning, the control that answers directly"""
GRPO_EPILOG = """Examples:

[bold]storm grpo --config worlds_tiny_grpo[/bold]   from what Stage II saved

[bold]storm grpo --config mine.yaml --rewards latent_use --donor_share 0.5[/bold]   answers that depend on the latents"""
RUN_EPILOG = """Examples:

[bold]storm run --config worlds_tiny_run --model_name_or_path runs/demo/base --dataset_name runs/demo/data[/bold]

[bold]storm run --config mine.yaml --output_dir runs/mine -- --num_machines 2 --machine_rank 1[/bold]   after -- for accelerate"""
_PLACES = {
    "--config": "YAML file with any of these arguments, or the name of a recipe that comes with storm-hf.",
    "--model_name_or_path": "Checkpoint to begin with, a STORM or a plain video-language model.",
    "--dataset_name": "Folder or Hub name of the data set, as `storm build` writes it.",
    "--output_dir": "Folder for checkpoints and the model.",
    "--accelerate_config": "Configuration of accelerate: a YAML file, or one of {configs}.",
    "--num_processes": "Processes, one for each GPU. All options of `accelerate launch` are passed on.",
}


class ScriptCommand(StormCommand):
    """Command that passes its arguments on to a training script."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Keep every argument as it was given; only a request for help is read here."""
        own = args[: args.index("--")] if "--" in args else args or ["--help"]
        super().parse_args(ctx, [word for word in own if word in ("-h", "--help")][:1])
        ctx.args = list(args)
        return ctx.args

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Add the arguments of STORM, and say where all others are listed."""
        from rich.console import Console

        super().format_help(ctx, formatter)
        places = {name: text.format(configs=", ".join(names_in(ACCELERATE_CONFIGS))) for name, text in _PLACES.items()}
        console, stage = Console(), str(self.name)
        console.print(argument_table(stage, places))
        console.print(f"\nRecipes: {', '.join(_recipes_of(stage))}\n", highlight=False)
        if stage != "run":
            script = shipped(f"trainers/{stage}.py")
            console.print(
                f"All arguments, with those of TRL: python {script} --help\n", highlight=False, soft_wrap=True
            )


def align(context: typer.Context) -> None:
    """Train Stage I: align the latents of a video-language model with thought videos.

    Starts trainers/align.py through accelerate. The same command resumes from the newest checkpoint.
    """
    _launch("align", context)


def answer(context: typer.Context) -> None:
    """Train Stage II on answers only, with the gradient through the model's own rollout.

    Starts trainers/answer.py through accelerate. The same command resumes from the newest checkpoint.
    """
    _launch("answer", context)


def grpo(context: typer.Context) -> None:
    """Train by rewards: roll-outs with noise on their latents, and a policy gradient through them.

    Starts trainers/grpo.py through accelerate. The same command resumes from the newest checkpoint.
    """
    _launch("grpo", context)


def run(context: typer.Context) -> None:
    """Train several stages one after the other: Stage I, Stage II, reinforcement, or any other curriculum.

    Starts trainers/run.py. Ctrl-C stops it after the running step; the same command resumes there.
    """
    _keep_tracebacks(context)
    end = context.args.index("--") if "--" in context.args else len(context.args)
    own, launch_arguments = _split_arguments(context.args[:end], _options_of("align", "answer", "grpo"))
    script = str(shipped("trainers/run.py"))
    sys.argv = ["storm run", *_with_recipe(own), "--", *launch_arguments, *context.args[end + 1 :]]
    runpy.run_path(script, run_name="__main__")


def _launch(stage: "StageKind", context: typer.Context) -> None:
    """Start the script of a stage, and end as it ends."""
    arguments = context.args
    _keep_tracebacks(context)
    from storm_hf.optional import require

    for package in ("trl", "datasets", "peft"):
        require(package)
    from storm_hf.curriculum.launch import AccelerateLauncher, run_logged

    with waiting("Reading the arguments"):
        parser = _parser_of(stage)
        options = {"--config", *parser._option_string_actions}
    own, launch_arguments = _split_arguments(arguments, options)
    own = _with_recipe(own)
    _check_names(stage, own, options)
    _check_values(stage, own, parser)
    script = [str(shipped(f"trainers/{stage}.py")), *own]
    ending = run_logged([*AccelerateLauncher.command, *launch_arguments, *AccelerateLauncher.runner, *script])
    if ending.is_interrupted:
        print_message("Stopped. The same command resumes from the newest checkpoint.")
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(ending.exit_code)


def _keep_tracebacks(context: typer.Context) -> None:
    """Ask the processes that run scripts for tracebacks too, where `storm --debug` does."""
    if context.find_root().params.get("debug"):
        os.environ[DEBUG] = "1"


def _split_arguments(arguments: Sequence[str], options: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tell the arguments of a script from those of `accelerate launch`.

    Args:
        arguments (`Sequence[str]`):
            All of them, in any order.
        options (`Iterable[str]`):
            Options of the script, which come before accelerate's of the same name.

    Returns:
        `tuple[list[str], list[str]]`: Arguments of the script, and of accelerate.
    """
    from accelerate.commands.launch import launch_command_parser

    of_accelerate = launch_command_parser()._option_string_actions.keys() - set(options)
    own: list[str] = []
    launch: list[str] = []
    for group in _groups(arguments):
        name, _, value = group[0].partition("=")
        if name == "--accelerate_config":
            launch += ["--config_file", str(named_file("".join([value, *group[1:]]), ACCELERATE_CONFIGS))]
        else:
            (launch if name in of_accelerate else own).extend(group)
    return own, launch


def _groups(arguments: Sequence[str]) -> Iterator[Group]:
    """Cut arguments before each option."""
    starts = [place for place, word in enumerate(arguments) if word.startswith("--")]
    if not arguments:
        return
    if starts[:1] != [0]:
        raise ConfigurationError(
            f"Expected arguments as `--name value`, got {arguments[0]!r} first. A recipe is given as `--config`."
        )
    for start, end in zip(starts, [*starts[1:], len(arguments)], strict=True):
        yield list(arguments[start:end])


def _options_of(*stages: "StageKind") -> set[str]:
    """Collect the options of the scripts of stages."""
    return {"--config", *chain.from_iterable(_parser_of(stage)._option_string_actions for stage in stages)}


def _parser_of(stage: "StageKind") -> ArgumentParser:
    """Make the parser of a stage's script."""
    from trl import TrlParser

    from storm_hf.curriculum.recipe import argument_records

    return TrlParser(argument_records(stage))


def _with_recipe(arguments: Sequence[str]) -> list[str]:
    """Replace the name of a recipe by its file."""
    found: list[str] = []
    for group in _groups(arguments):
        name, _, value = group[0].partition("=")
        is_recipe = name == "--config" and (value or group[1:])
        found += ["--config", str(named_file(value or group[1], TRAIN_RECIPES))] if is_recipe else group
    return found


def _check_names(stage: str, arguments: Sequence[str], options: set[str]) -> None:
    """Refuse an argument that the script does not know, on the command line or in the recipe, before any process is started."""
    from storm_hf.settings import read_yaml

    for group in _groups(arguments):
        name = group[0].partition("=")[0]
        _check_name(stage, name, options)
        if name == "--config" and group[1:]:
            for key in read_yaml(Path(group[1])):
                _check_name(stage, f"--{key}", options | {"--env"}, f" in {group[1]}")


def _check_values(stage: str, arguments: Sequence[str], parser: ArgumentParser) -> None:
    """Refuse a value that the script cannot read, in one line, where the script would print the usage of all its arguments."""

    def refuse(message: str) -> NoReturn:
        name, _, reason = message.removeprefix("argument ").partition(": ")
        raise ConfigurationError(
            f"Expected another value of {name.partition('/')[0]}: {reason}. `storm {stage} --help` says what it is."
        )

    parser.error = refuse  # type: ignore[method-assign]
    for action in parser._actions:
        action.required = False  # the recipe may have it
    ArgumentParser.parse_known_args(parser, list(arguments))


def _check_name(stage: str, name: str, options: set[str], where: str = "") -> None:
    if name not in options:
        near = get_close_matches(name, options, 1)
        hint = f"Did you mean {near[0]}?" if near else f"`storm {stage} --help` lists those of STORM."
        raise ConfigurationError(
            f"Expected arguments of trainers/{stage}.py or of accelerate launch{where}, got {name}. {hint}"
        )


def _recipes_of(stage: str) -> list[str]:
    kinds = ("run", "coconut") if stage == "run" else (stage,)
    return [name for name in names_in(TRAIN_RECIPES) if name.rpartition("_")[2] in kinds]
