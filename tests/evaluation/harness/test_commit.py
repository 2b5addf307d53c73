import json
from dataclasses import replace

import pytest
from huggingface_hub import HfApi, constants
from tests.hub.conftest import online
from tests.hub.server import serve
from tests.hub.store import Store

from storm_hf.errors import CheckpointError, StaleWorkError
from storm_hf.evaluation.harness import benchmarks as commit_module
from storm_hf.evaluation.harness import run as run_module
from storm_hf.evaluation.harness.benchmarks import describe_weights, resolve_commit, weights_stamp
from storm_hf.evaluation.harness.run import EvaluationRun, evaluate
from storm_hf.evaluation.harness.settings import ChatSettings


NAME = "me/storm"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of this test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch, tmp_path, cache):
    """A Hub on loopback that clients of this process talk to, with a model of one commit."""
    store = Store()
    with serve(store) as url, online(monkeypatch, url, tmp_path / "hf"):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        api = HfApi(endpoint=url, token="hf_test")
        api.create_repo(NAME)
        push(api, "first")
        yield api


def push(api, content):
    """Commit something, and give the commit's name."""
    return api.upload_file(path_or_fileobj=content.encode(), path_in_repo="weights.txt", repo_id=NAME).oid


def snapshot(cache, commit, revision="main"):
    """Files of a download in the cache."""
    folder = cache / "models--me--storm"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")


def test_name_on_the_hub_is_bound_to_its_commit(hub):
    first = resolve_commit(NAME)
    hub.create_tag(NAME, tag="v1")
    second = push(hub, "second")
    assert first != second
    assert [resolve_commit(NAME, revision) for revision in (None, "main", "v1", first)] == [
        second,
        second,
        first,
        first,
    ]


@pytest.mark.parametrize(
    ("name", "revision", "message"), [(NAME, "v9", "no revision 'v9'"), ("me/other", None, "knows no model")]
)
def test_what_the_hub_does_not_have_is_named(hub, name, revision, message):
    with pytest.raises(CheckpointError, match=message):
        resolve_commit(name, revision)


def test_snapshot_of_the_cache_is_the_commit_where_the_hub_cannot_be_reached(cache):
    snapshot(cache, "a" * 40)
    snapshot(cache, "b" * 40, "v1")
    assert resolve_commit(NAME) == "a" * 40
    assert resolve_commit(NAME, "v1") == "b" * 40
    assert resolve_commit(NAME, "a" * 40) == "a" * 40
    with pytest.raises(CheckpointError, match="v2 is not cached"):
        resolve_commit(NAME, "v2")
    with pytest.raises(CheckpointError, match="Hub cannot be reached"):
        resolve_commit("me/other")


def test_folder_has_no_commit(storm_checkpoint, tmp_path):
    assert resolve_commit(str(storm_checkpoint)) is None
    with pytest.raises(CheckpointError, match="is a folder, which has no revision 'v1'"):
        resolve_commit(str(storm_checkpoint), "v1")
    with pytest.raises(CheckpointError, match="no model folder"):
        resolve_commit(str(tmp_path / "nothing"))


def test_stamp_changes_with_the_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = weights_stamp(str(tmp_path))
    assert before == weights_stamp(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert weights_stamp(str(tmp_path)) != before
    assert weights_stamp("owner/name") is None


def test_adapter_is_another_one_where_its_base_is(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "model.safetensors").write_bytes(b"1")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = describe_weights(str(adapter))
    (base / "model.safetensors").write_bytes(b"12")
    after = describe_weights(str(adapter))
    assert before["weights"] == after["weights"]
    assert before["base_weights"] != after["base_weights"]


def test_settings_without_a_revision_keep_the_keys_of_logged_answers():
    assert "revision" not in ChatSettings("m").identity
    assert ChatSettings("m", revision="a").identity["revision"] == "a"
    assert ChatSettings.from_arguments({"pretrained": "m", "revision": 1234567}).revision == "1234567"


@pytest.fixture
def passed_on(monkeypatch):
    """Arguments of each process of lmms-eval; none is started."""
    told = []
    monkeypatch.setattr(run_module, "find_spec", lambda name: object())
    monkeypatch.setattr(run_module, "is_storm", lambda name, revision: True)
    monkeypatch.setattr(commit_module, "find_adapter", lambda name, **place: None)  # downloads know only the real Hub
    monkeypatch.setattr(
        run_module, "_run_variant", lambda run, variant, progress: told.append((variant, run.arguments(variant)))
    )
    return told


def test_answers_of_a_model_that_was_pushed_again_are_not_taken_for_its_own(hub, passed_on, tmp_path):
    run = EvaluationRun(NAME, ("videomme",), tmp_path / "run")
    first = resolve_commit(NAME)
    evaluate(run)
    assert {(variant, told["revision"]) for variant, told in passed_on} == {("storm", first), ("direct", first)}
    second = push(hub, "second")
    with pytest.raises(StaleWorkError, match=f"revision was {first} and is now {second}"):
        evaluate(run)
    evaluate(replace(run, revision=first))
    assert {told["revision"] for _, told in passed_on} == {first}


def test_backbone_has_a_revision_of_its_own(hub, passed_on, storm_checkpoint, tmp_path):
    run = EvaluationRun(str(storm_checkpoint), ("videomme",), tmp_path / "run", backbone=NAME)
    evaluate(run)
    assert ["revision" in told for _, told in passed_on] == [False, True]
    assert passed_on[1][1]["revision"] == resolve_commit(NAME)
