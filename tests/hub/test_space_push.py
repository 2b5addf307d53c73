"""A Space is pushed to a Hub over HTTP with the real client."""

import ast
import re
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.errors import PublicationError
from storm_hf.hub.space_push import GRADIO_VERSION, SpacePush


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO, MODEL = "me/ask-storm", "me/storm"
PINS = Path(__file__).parents[2] / "constraints-app.txt"


def test_space_has_a_card_a_page_and_what_it_needs(api, store):
    published = SpacePush(REPO, model=MODEL, api=api).run()
    repository = store.repositories["space", REPO]
    assert {"README.md", "app.py", "requirements.txt"} <= set(repository.files("main"))
    assert repository.is_private
    assert published.repo == REPO
    page = {
        file.path_in_repo: file.path_or_fileobj.decode() for file in SpacePush(REPO, model=MODEL, api=api).files(REPO)
    }
    card = SpaceCard(page["README.md"]).data
    assert (card.sdk, card.app_file, card.models) == ("gradio", "app.py", [MODEL])
    assert f'Session.load("{MODEL}")' in page["app.py"]
    ast.parse(page["app.py"])


def test_gradio_of_a_space_is_the_one_that_the_page_is_tested_with():
    assert re.findall(r"^gradio==(.*)$", PINS.read_text(), flags=re.MULTILINE) == [GRADIO_VERSION]


@pytest.mark.parametrize("model", ["runs/demo/storm", 'me/storm")#', "../storm"])
def test_model_that_is_not_on_the_hub_is_refused_before_anything_is_made(api, store, model):
    with pytest.raises(PublicationError, match="name of a model on the Hub"):
        SpacePush(REPO, model=model, api=api).run()
    assert not store.repositories


def test_storm_push_makes_a_space(api, url, store, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    result = CliRunner().invoke(app, ["push", "--space", REPO, "--model", MODEL])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{url}/spaces/{REPO}\n"
    assert ("space", REPO) in store.repositories


@pytest.mark.parametrize("arguments", [[], ["--space", REPO], ["--model", MODEL], ["folder", REPO, "--space", REPO]])
def test_half_a_command_is_told_in_one_line(arguments):
    result = CliRunner().invoke(app, ["push", *arguments])
    assert result.exit_code == 2
