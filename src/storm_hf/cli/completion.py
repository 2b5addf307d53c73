"""`storm completion`: the tab key in bash.

The script that it prints knows subcommands, options and choices by itself. One that asked the program, as typer's does, would start Python
and load transformers at each press of the key.
"""

import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

import typer


EPILOG = """Example:

[bold]storm completion >> ~/.bashrc[/bold]

It takes effect in the next shell. Give it again after an update."""

_SCRIPT = """_storm_completion() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" subcommand="" word words=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$subcommand $word" in
            {subcommands}) subcommand="${{subcommand:+$subcommand }}$word" ;;
        esac
    done
    case "$subcommand $previous" in
{choices}
    esac
    if [[ -z $words ]]; then
        case "$subcommand" in
{words}
        esac
        [[ $current == -* || $words != -* ]] || words=""
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _storm_completion storm
"""


def print_completion(context: typer.Context) -> None:
    """Print a script with which bash completes subcommands, options and choices.

    Where none of them fits, it completes names of files.
    """
    typer.echo(_completion_script(context.find_root().command), nl=False)


def _completion_script(command: Any) -> str:
    """Write the script for a command with its subcommands.

    Args:
        command (`click.Group`):
            The command; its own group of subcommands, where a subcommand has some, is completed too.
    """
    subcommands = dict(_subcommands(command))
    return _SCRIPT.format(
        subcommands=" | ".join(f'"{_case(subcommand)}"' for subcommand in subcommands if subcommand),
        choices="\n".join(_choices(subcommands)),
        words="\n".join(
            f'            "{subcommand}") words="{" ".join(_words(each))}" ;;'
            for subcommand, each in subcommands.items()
        ),
    )


def _subcommands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A command and everything below it, by the words that lead there."""
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from _subcommands(below, f"{name} {word}".strip())


def _case(subcommand: str) -> str:
    """The subcommand as the loop over words meets it: what was found before, a blank, the next word."""
    before, _, word = subcommand.rpartition(" ")
    return f"{before} {word}"


def _words(command: Any) -> list[str]:
    """The subcommands below a command, or its long options."""
    if below := [name for name, each in getattr(command, "commands", {}).items() if not each.hidden]:
        return below
    return ["--help", *(name for parameter in command.params for name in _long(parameter))]


def _long(parameter: Any) -> list[str]:
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]


def _choices(subcommands: dict[str, Any]) -> Iterator[str]:
    """A line for each option that takes one of a few words."""
    for subcommand, command in subcommands.items():
        hints = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
        for parameter in command.params:
            if choices := _enumeration(hints.get(parameter.name)) or _alternatives(parameter):
                options = " | ".join(f'"{subcommand} {option}"' for option in parameter.opts)
                yield f'        {options}) words="{" ".join(choices)}" ;;'


def _enumeration(hint: object) -> list[str]:
    """The words of an enumeration, which may be optional or listed."""
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Enum)]
    return [str(member.value) for kind in kinds for member in kind]


def _alternatives(parameter: Any) -> list[str]:
    """The words that stand for the value in the help."""
    words = str(getattr(parameter, "metavar", None) or "").split(" | ")
    return words if len(words) > 1 else []
