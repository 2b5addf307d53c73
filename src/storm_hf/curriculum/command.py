"""The command line of a run: a recipe, arguments for all stages, and after `--` those of `accelerate launch`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from storm_hf.errors import ConfigurationError


@dataclass(frozen=True)
class RunCommand:
    """Options of the command line of a curriculum.

    Args:
        config (`Path`):
            The recipe.
        overrides (`Mapping[str, Any]`):
            Arguments that replace those of every stage.
        launch_arguments (`tuple[str, ...]`):
            Arguments of `accelerate launch`.
    """

    config: Path
    overrides: Mapping[str, Any]
    launch_arguments: tuple[str, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str], description: str | None = None) -> "RunCommand":
        """Take a command line apart.

        Args:
            arguments (`Sequence[str]`):
                `--config RECIPE [--NAME VALUE ...] [-- ACCELERATE_ARGUMENT ...]`.
            description (`str`, *optional*):
                Description shown by `--help`.

        Raises:
            ConfigurationError: If an argument has no name, or not one value.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        parser = argparse.ArgumentParser(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage="%(prog)s --config RECIPE [--NAME VALUE ...] [-- ACCELERATE_ARGUMENT ...]",
            allow_abbrev=False,
        )
        parser.add_argument("--config", type=Path, required=True, metavar="RECIPE", help="YAML file with the stages")
        own, others = parser.parse_known_args(list(arguments[:end]))
        return cls(own.config, _pairs(others), tuple(arguments[end + 1 :]))


def _pairs(arguments: Sequence[str]) -> dict[str, Any]:
    """Read `--name value` and `--name=value`, the values as YAML does."""
    words = [word for argument in arguments for word in _split(argument)]
    names, values = words[::2], words[1::2]
    is_paired = len(names) == len(values) and not any(value.startswith("--") for value in values)
    if not is_paired or not all(name.startswith("--") for name in names):
        raise ConfigurationError(
            f"Expected arguments for all stages as `--name value`, got {' '.join(arguments)!r}. Those of `accelerate launch` "
            "come after `--`."
        )
    return {name.removeprefix("--"): yaml.safe_load(value) for name, value in zip(names, values, strict=True)}


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") and "=" in argument else [argument]
