"""The language of docstrings, messages and pages: the figures of `tools/house.py`, with their limits."""

import runpy
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
HOUSE = runpy.run_path(str(ROOT / "tools" / "house.py"))
SHIPPED = HOUSE["python_files"]("src", "trainers", "datasets_builders", "benchmarks", "tools")
MAX_SHARE = 0.02

OPENERS = '''
"""What a module holds."""


def loads(path):
    """Load a file.

    Args:
        path (`Path`):
            Where it lies.
        strict (`bool`):
            Whether damage is an error.
    """
    raise ValueError("nobody told the right answer")  # whoever reads `told` in code is not told


class Reader:
    """Reader of files."""
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "openers.py"
    path.write_text(OPENERS.strip())
    return path


def named(places):
    """The places, in words for a failing test."""
    return [f"{file.relative_to(ROOT)}:{line}: {text}" for file, line, text in places]


def test_opening_clause_is_found_and_other_docstrings_are_not(file):
    found, count = HOUSE["opening_clauses"]([file])
    assert [(line, text) for _, line, text in found] == [(1, "What a module holds.")]
    assert count == 3


def test_clause_of_an_argument_is_found_but_not_the_idiom_for_flags(file):
    found, count = HOUSE["argument_clauses"]([file])
    assert [text for _, _, text in found] == ["Where it lies."]
    assert count == 2


def test_banned_word_is_found_in_messages_and_comments_but_not_in_code(file):
    words = [text for _, _, text in HOUSE["banned_words"]([file])]
    assert words == ["nobody", "told", "right answer", "whoever", "told"]


def test_docstrings_open_with_an_imperative_or_a_noun():
    found, count = HOUSE["opening_clauses"](SHIPPED)
    assert len(found) <= MAX_SHARE * count, named(found)


def test_arguments_are_described_by_nouns():
    found, count = HOUSE["argument_clauses"](SHIPPED)
    assert len(found) <= MAX_SHARE * count, named(found)


def test_code_uses_no_banned_word():
    assert named(HOUSE["banned_words"](SHIPPED)) == []


def test_pages_and_templates_use_no_banned_word():
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "hub_cards").glob("*.md"),
    ]
    templates = [file for suffix in ("md", "j2", "html") for file in (ROOT / "src").rglob(f"*.{suffix}")]
    history = ROOT / "docs" / "decisions.md"
    assert named(HOUSE["banned_words"]([file for file in (*pages, *templates) if file != history])) == []
