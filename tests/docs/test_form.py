"""Form of the README and the pages: prose is wrapped, cells hold phrases, and a training is called a variant."""

import re

import pytest
from tests.docs.pages import PAGES, ROOT


MAX_COLUMNS = 125
MAX_CODE_COLUMNS = 120  # a block that is wider is scrolled
HISTORY = ROOT / "docs" / "decisions.md"
READ = [*(page for page in PAGES if page != HISTORY), ROOT / "benchmarks" / "RESULTS.md"]

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PLACES = re.findall(r"^\| (.+) \| `([\w/.]+)`(?:, `(\w+)`)? \|$", CONTRIBUTING, re.MULTILINE)

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)


def lines_of(text):
    """Number and text of each line outside of fenced blocks."""
    blank = _FENCED.sub(lambda block: "\n" * block[0].count("\n"), text)
    return list(enumerate(blank.splitlines(), start=1))


def long_lines(text):
    free = ("|", "    ", "![", ":::")  # tables, pictures of text, images, the reference
    return [number for number, line in lines_of(text) if len(line) > MAX_COLUMNS and not line.startswith(free)]


def sentences_in_cells(text):
    cells = [
        (number, _CODE.sub("code", cell).strip())
        for number, line in lines_of(text)
        if line.startswith("|")
        for cell in line.strip("|").split(" | ")
    ]
    return [(number, cell) for number, cell in cells if re.search(r"\w{3}\. [A-Z]|\w{3}\.$", cell)]


def test_long_line_of_prose_is_found_but_not_a_long_row_or_command():
    long = "word " * 40
    assert long_lines(f"short\n{long}\n| {long} |\n```bash\n{long}\n```\n    {long}") == [2]


def test_sentence_in_a_cell_is_found_but_no_phrase_or_number():
    text = "| a | It works. It does. |\n| b | .98 to 1.00, `a. B` |\n| c | the end of it |"
    assert sentences_in_cells(text) == [(1, "It works. It does.")]


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_prose_is_wrapped(page):
    assert long_lines(page.read_text()) == []


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_cells_hold_phrases(page):
    assert sentences_in_cells(page.read_text()) == []


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_code_in_a_sentence_is_on_one_line(page):
    paragraphs = _FENCED.sub("", page.read_text()).split("\n\n")
    assert [code for text in paragraphs for code in _CODE.findall(text) if "\n" in code] == []


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_commands_are_broken_before_they_run_out_of_their_box(page):
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if len(line) > MAX_CODE_COLUMNS] == []


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_a_training_that_is_compared_is_called_a_variant(page):
    prose = [_CODE.sub("", line) for _, line in lines_of(page.read_text()) if not line.startswith("    ")]
    assert [line for line in prose if re.search(r"\barms?\b", line, re.IGNORECASE)] == []


def test_what_is_asked_most_is_among_the_places_to_change():
    asked = {
        "the projector",
        "a loss of Stage I",
        "the pooling of targets",
        "a backbone's quirk",
        "an intervention",
        "a card's line",
    }
    assert asked <= {subject for subject, _, _ in PLACES}
    assert sum("limit" in subject for subject, _, _ in PLACES) == 2


@pytest.mark.parametrize(("file", "name"), [(file, name) for _, file, name in PLACES])
def test_place_to_change_is_a_file_that_defines_what_is_named(file, name):
    assert (ROOT / file).is_file()
    assert not name or re.search(rf"^(?:class|def) {name}\b", (ROOT / file).read_text(), re.MULTILINE)
