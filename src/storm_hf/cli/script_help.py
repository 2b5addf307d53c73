"""Arguments of the training scripts for `--help`, read from the docstrings of their configurations without importing them."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import storm_hf


if TYPE_CHECKING:
    from rich.table import Table


_ARGUMENT = re.compile(r"^(\w+) \(`[^`]*`(?:, \*optional\*)?(?:, defaults to `(.*)`)?\):$")
_CONFIGURATIONS = {
    "align": {"align/config.py": "StormAlignConfig"},
    "answer": {"answer/config.py": "StormAnswerConfig"},
    "grpo": {"reinforce/config.py": "StormGRPOConfig"},
    "run": {},
}
_TITLES = {
    "StormAlignConfig": "Stage I",
    "StormAnswerConfig": "Stage II",
    "StormGRPOConfig": "Reinforcement",
    "StormTrainingConfig": "Both stages",
    "StormModelConfig": "The model",
}
_OF_STAGES = {"training/config.py": "StormTrainingConfig"}
_OF_MODEL = {"training/loading.py": "StormModelConfig"}


@dataclass(frozen=True)
class DocumentedArgument:
    """Argument of a configuration as its docstring describes it.

    Args:
        name (`str`):
            Name of the field.
        summary (`str`):
            First sentence of its description.
        default (`str`):
            Default as documented, empty if there is none.
    """

    name: str
    summary: str
    default: str = ""


def documented_arguments(file: Path, class_name: str) -> Iterator[DocumentedArgument]:
    """Read the `Parameters:` section of a class's docstring.

    Args:
        file (`Path`):
            Module that defines the class. It is not imported.
        class_name (`str`):
            Name of the class.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    section = inspect.cleandoc((ast.get_docstring(found) or "").partition("Parameters:\n")[2].partition("\n\n")[0])
    for block in re.split(r"\n(?=\S)", section):
        head, _, description = block.partition("\n")
        if match := _ARGUMENT.match(head):
            sentence, _, _ = " ".join(description.split()).partition(". ")
            yield DocumentedArgument(match[1], _plain(sentence.rstrip(".:") + "."), _plain(match[2] or ""))


def _plain(text: str) -> str:
    """Remove the markup of a docstring."""
    return re.sub(r"\[`~?(\S+?)`\]", r"\1", text).replace("`", "").replace('"', "")


def argument_table(stage: str, places: Mapping[str, str]) -> "Table":
    """Make a table of the arguments that STORM adds to TRL's.

    Args:
        stage (`str`):
            `"align"`, `"answer"`, `"grpo"` or `"run"`.
        places (`Mapping[str, str]`):
            Further options with their help, shown first.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="bold cyan")
    table.add_column()
    table.add_row(Text("The run", "bold"))
    for name, summary in places.items():
        table.add_row(name, Text(summary))
    package = Path(storm_hf.__file__).parent
    shared = _OF_MODEL if stage == "grpo" else _OF_STAGES | _OF_MODEL
    for file, class_name in (_CONFIGURATIONS[stage] | shared).items():
        table.add_row()
        table.add_row(Text(_TITLES[class_name], "bold"))
        for argument in documented_arguments(package / file, class_name):
            default = f"  [default: {argument.default}]" if argument.default else ""
            table.add_row(f"--{argument.name}", Text.assemble(argument.summary, (default, "dim")))
    return table
