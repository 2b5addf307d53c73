"""The published examples are what the templates render, and every card says nothing that is not known."""

import re

import pytest
import yaml
from huggingface_hub import SpaceCard
from tests.hub.card_values import published_cards
from tests.hub.metadata import metadata_problems
from tests.hub.write_cards import FOLDER

from storm_hf.hub.card_metadata import check_card
from storm_hf.hub.space_push import space_card


CARDS = published_cards()
PLACEHOLDERS = ("None", "{{", "}}", "{%", "More information needed", "[More", "nan", "path/or/", "TODO")


@pytest.mark.parametrize("name", sorted(CARDS))
def test_published_example_is_what_the_template_renders(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == CARDS[name], "run `python -m tests.hub.write_cards`"


@pytest.mark.parametrize("name", sorted(CARDS))
def test_metadata_of_an_example_is_what_the_hub_takes(name):
    kind = next((kind for kind in ("dataset", "space") if name.startswith(kind)), "model")
    check_card(CARDS[name], kind)
    assert metadata_problems(CARDS[name], kind) == []


def test_no_other_example_is_published():
    assert {path.name for path in FOLDER.iterdir()} == set(CARDS)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_example_has_no_placeholder_and_no_hole(name):
    for placeholder in PLACEHOLDERS:
        assert placeholder not in CARDS[name], placeholder
    assert not re.search(r"\n{4,}|``\W*``\n``|\| *\| *\| *\|", CARDS[name])
    assert CARDS[name].count("```") % 2 == 0


@pytest.mark.parametrize("name", sorted(CARDS))
def test_citation_is_whole(name):
    citation = CARDS[name].partition("```bibtex")[2].partition("```")[0]
    assert citation.count("{") == citation.count("}")
    assert "eprint = {2605.26014}" in citation


def test_space_says_what_it_runs():
    card = space_card("me/ask", model="me/storm", gradio_version="6.0.0")
    assert isinstance(card, SpaceCard)
    read = yaml.safe_load(str(card).split("---\n")[1])
    wanted = {"sdk": "gradio", "sdk_version": "6.0.0", "app_file": "app.py", "models": ["me/storm"], "title": "ask"}
    assert wanted.items() <= read.items()
    assert "license" not in read
