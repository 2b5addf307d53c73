"""`storm push` says what it did, asks before everybody can see it, and tells errors in one line."""

import pytest
from tests.hub.conftest import api, folder, store, url  # noqa: F401
from typer.testing import CliRunner

from storm_hf.cli import app


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "me/thoughts"


@pytest.fixture
def push(api, folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)

    def invoke(*options, answer=None):
        return CliRunner().invoke(app, ["push", str(folder), REPO, *options], input=answer)

    return invoke


def test_address_goes_to_stdout_and_the_rest_to_stderr(push, url, store):  # noqa: F811
    result = push()
    assert result.exit_code == 0
    assert result.stdout == f"{url}/datasets/{REPO}\n"
    assert "8 rows, private." in result.stderr
    assert "2 clips with the licence 'proprietary' withheld" in result.stderr
    assert store.repositories["dataset", REPO].is_private


@pytest.mark.parametrize(("answer", "is_public"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_public_is_asked_first(push, store, answer, is_public):  # noqa: F811
    result = push("--public", answer=answer)
    assert result.exit_code == (0 if is_public else 1)
    assert "Let everybody see 8 rows" in result.stderr
    assert bool(store.repositories) is is_public
    assert not is_public or not store.repositories["dataset", REPO].is_private


def test_yes_answers_for_scripts(push, store):  # noqa: F811
    assert push("--public", "--yes").exit_code == 0
    assert not store.repositories["dataset", REPO].is_private


def test_options_reach_the_repository(push, store):  # noqa: F811
    assert push("--reference", "--tag", "v1", "--revision", "next").exit_code == 0
    repository = store.repositories["dataset", REPO]
    assert {"tags/v1", "next"} <= set(repository.refs)
    assert not [name for name in repository.files("next") if name.startswith("videos/")]


def test_dry_run_lists_files_and_card_and_asks_nobody(push, folder, store):  # noqa: F811
    (folder / "notes.md").write_text("x")
    result = push("--dry-run", "--public")
    assert result.exit_code == 0
    assert "data/train-00000-of-00002.parquet\n" in result.stdout
    assert "# thoughts" in result.stdout
    assert "left out: 1 file: notes.md." in result.stderr
    assert "Let everybody see" not in result.stderr
    assert not store.requests


def test_further_file_is_asked_for_by_a_pattern(push, folder, store):  # noqa: F811
    (folder / "notes.md").write_text("x")
    result = push("--include", "*.md")
    assert "left out" not in result.stderr
    assert "notes.md" in store.repositories["dataset", REPO].files("main")


def test_licence_of_a_data_set_is_no_option(push, store):  # noqa: F811
    assert push("--license", "mit").exit_code == 2
    assert not store.repositories


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "Expected the folder of a STORM"), ("notes.txt", "Expected a complete data set")],
)
def test_folder_that_holds_neither_is_refused_in_one_line_with_code_2(tmp_path, name, message):
    (tmp_path / name).write_text('{"model_type": "llama"}')
    result = CliRunner().invoke(app, ["push", str(tmp_path), REPO])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"storm: {message}")
    assert len(result.stderr.splitlines()) == 1


def test_checkpoint_is_told_from_a_data_set(checkpoint, api, url, store, monkeypatch):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    result = CliRunner().invoke(app, ["push", str(checkpoint), "me/storm", "--tag", "v1"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{url}/me/storm\n"
    assert "files, private." in result.stderr
    assert "The card names no licence. Name one with --license" in result.stderr
    repository = store.repositories["model", "me/storm"]
    assert {"model.safetensors", "modeling_storm.py", "README.md"} <= set(repository.files("v1"))


def test_cut_upload_is_told_in_one_line_with_code_2(push, store):  # noqa: F811
    store.bytes_until_cut = 100
    result = push()
    assert result.exit_code == 2
    assert result.stderr.startswith(f"storm: Expected to publish in {REPO}")
    assert "Give the same command again" in result.stderr
    assert len(result.stderr.splitlines()) == 1
