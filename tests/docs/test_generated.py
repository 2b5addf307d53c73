"""Parts of the site that are made when it is built hold what they are made from."""

import re
import runpy

import pytest
from tests.docs.pages import ROOT
from typer.main import get_command

from storm_hf.cli import app


MADE = runpy.run_path(str(ROOT / "docs" / "generated.py"))
COMMANDS = MADE["commands_page"]()


def leaves(command, words):
    """Yield each command that does something, with its words."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield words, command
    for name, each in inner.items():
        yield from leaves(each, [*words, name])


LEAVES = [(" ".join(words), command) for words, command in leaves(get_command(app), ["storm"])]


@pytest.mark.parametrize(("name", "command"), LEAVES, ids=[name for name, _ in LEAVES])
def test_section_of_a_command_has_each_option_with_its_help(name, command):
    section = re.split(r"^#+ `", COMMANDS.partition(f"# `{name}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert section
    for parameter in command.params:
        hidden = getattr(parameter, "hidden", False) or "--help" in parameter.opts
        assert hidden or all(f"{option} " in section or f"{option}`" in section for option in parameter.opts[:1])


@pytest.mark.parametrize(
    "name", [path.stem for path in ROOT.glob("trainers/*.py") if f"storm {path.stem}" in dict(LEAVES)]
)
def test_section_of_a_training_links_to_the_configurations_whose_fields_it_takes(name):
    section = re.split(r"^#+ `", COMMANDS.partition(f"# `storm {name}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    linked = set(re.findall(r"\(training\.md#storm_hf\.(Storm\w+)\)", section))
    script = (ROOT / "trainers" / f"{name}.py").read_text()
    assert linked
    assert linked >= set(re.findall(r"\bStorm\w+Config\b", script))


def test_page_of_commands_has_no_mark_of_a_terminal():
    assert re.findall(r"\[/?(?:bold|dim)\]|\\\[", COMMANDS) == []


def test_consecutive_examples_are_one_block_with_their_remarks():
    described = "Examples:\n\n[bold]storm a[/bold]   first\n\n[bold]storm b[/bold]\n\nSee [bold]storm c[/bold].\n"
    block = "```bash\n# first\nstorm a\nstorm b\n```\n\n"
    assert MADE["with_examples"](described) == f"Examples:\n\n{block}See `storm c`.\n"


def test_links_of_the_results_lead_to_pages_of_the_site():
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", MADE["results_page"]())
    assert targets
    assert [name for name in targets if not (ROOT / "docs" / name).is_file()] == []


@pytest.mark.parametrize("source", ["../benchmarks/RESULTS.md", "../src/storm_hf/cli/__init__.py"])
def test_links_to_what_a_page_is_made_of_lead_to_the_page(source):
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    linking = [page for page in pages if f"]({source})" in page]
    assert linking
    for page in linking:
        targets = re.findall(r"\]\(([^)#]+)", MADE["on_page_markdown"](page, page=None))
        assert source not in targets
        assert set(targets) & set(MADE["PAGES"])


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://host.org/me/storm-hf.git", "https://host.org/me/storm-hf"),
        ("https://name:secret@host.org/me/storm-hf", "https://host.org/me/storm-hf"),
        ("git@host.org:me/storm-hf.git", "https://host.org/me/storm-hf"),
        ("ssh://git@host.org/me/storm-hf.git", "https://host.org/me/storm-hf"),
        ("../storm-hf", None),
        ("", None),
    ],
)
def test_pages_link_to_the_origin_on_the_web_and_name_no_user(origin, address):
    assert MADE["web_address"](origin) == address
