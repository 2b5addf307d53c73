"""Parts of the site that are made while it is built: the commands of `storm`, the results, the link to the repository.

Nothing exists twice. The commands are read from the command line itself, the results are `benchmarks/RESULTS.md`,
and the link is the origin of the clone.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]

_SSH = re.compile(r"^(?:ssh://)?git@([^:/]+)[:/]")
_USER = re.compile(r"//[^/@]*@")
_EXAMPLES = re.compile(r"^(?:\[bold\](?:[A-Z_]+=\S+ )*storm .*\n+)+", re.MULTILINE)  # a paragraph each
_EXAMPLE = re.compile(r"^\[bold\](.*?)\[/bold\](?: +(.*))?$", re.MULTILINE)  # a command, and a remark behind it
_BOLD = re.compile(r"\[bold\](.*?)\[/bold\]")
_DIM = re.compile(r"\[dim\]\\(.*?)\[/dim\]")
_SHORTENED = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n")  # the sections below have the whole sentences
_HELP = "* `--help`: Show this message and exit.\n"  # the same in every section
_BUILD = ("storm build RECIPE [OPTIONS] {recipe}", "storm build [OPTIONS] {recipe}")
_LINKS = {  # from what a page is made of, which is in the repository, to the page, which is not
    "](../benchmarks/RESULTS.md": "](results.md",
    "](../src/storm_hf/cli/__init__.py": "](reference/commands.md",
}
_TRAINING_USAGE = re.compile(r"^\$ storm (align|answer|grpo|run) .*\n```\n", re.MULTILINE)
_CONFIGURATIONS = {
    "align": ["StormAlignConfig", "StormModelConfig"],
    "answer": ["StormAnswerConfig", "StormModelConfig"],
    "grpo": ["StormGRPOConfig", "StormModelConfig"],
    "run": ["StormCurriculum", "StormAlignConfig", "StormAnswerConfig", "StormGRPOConfig", "StormModelConfig"],
}


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Link to the repository, if the clone has an origin on the web."""
    command = ["git", "config", "--get", "remote.origin.url"]
    origin = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    config.repo_url, config.repo_name = web_address(origin), "Repository"
    return config


def web_address(origin: str) -> str | None:
    """Turn the origin of a clone into the address of its page, without user and password; None for a folder."""
    address = _SSH.sub(r"https://\1/", origin).removesuffix(".git")
    return _USER.sub("//", address) if address.startswith("https://") else None


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages to those that lie in `docs/`."""
    from mkdocs.structure.files import File

    sys.path.insert(0, str(ROOT / "src"))
    for path, make_page in PAGES.items():
        files.append(File.generated(config, path, content=make_page()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links to the pages that are made. In the repository they lead to what the pages are made of."""
    for source, made in _LINKS.items():
        markdown = markdown.replace(source, made)
    return markdown


def commands_page() -> str:
    """Describe each command with its arguments, options and examples, in Markdown."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    import storm_command  # noqa: F401  # before the package, which then loads neither torch nor transformers
    from storm_hf.cli import app

    command = get_command(app)
    described = get_docs_for_click(obj=command, ctx=Context(command, info_name="storm"), name="storm")
    described = _SHORTENED.sub("", described).replace(_HELP, "").replace("**Options**:\n\n\n", "").replace(*_BUILD)
    described = _TRAINING_USAGE.sub(_with_arguments, described)
    return with_examples(described.replace("# `storm`", "# Commands", 1))


def _with_arguments(usage: re.Match[str]) -> str:
    """Name the configurations whose fields a training command takes."""
    links = [f"[`{name}`](training.md#storm_hf.{name})" for name in _CONFIGURATIONS[usage[1]]]
    return (
        f"{usage[0]}\nArguments are the fields of {', '.join(links)} and of TRL's `ScriptArguments`, on the command line or in "
        "the recipe. Options of `accelerate launch` are passed on.\n"
    )


def with_examples(described: str) -> str:
    """Show the examples of each command as one block, and commands inside of sentences as code."""
    described = _DIM.sub(r"\1", _EXAMPLES.sub(_as_block, described))
    return _BOLD.sub(r"`\1`", described)


def _as_block(examples: re.Match[str]) -> str:
    """Write consecutive examples as one block, each remark above its command."""
    commands = [f"# {remark}\n{command}" if remark else command for command, remark in _EXAMPLE.findall(examples[0])]
    return "```bash\n" + "\n".join(commands) + "\n```\n\n"


def results_page() -> str:
    """Read the results, with links that lead from this page."""
    return (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").replace("](../docs/", "](")


PAGES = {"reference/commands.md": commands_page, "results.md": results_page}
