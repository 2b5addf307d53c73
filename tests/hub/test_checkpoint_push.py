"""A checkpoint is pushed to a Hub over HTTP with the real client: whole, clean, described, and in more than one go."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import save_file
from tests.hub.checkpoints import NUM_LATENTS, leave_what_training_leaves, write_adapter, write_checkpoint
from tests.hub.seeds import CONFIGURED, SECRETS, SEEDS, sow
from tests.hub.test_model_card import DIAGNOSIS, REPORT
from torch import zeros

from storm_hf.errors import CheckpointError, PublicationError, ServerError
from storm_hf.evaluation import load_checkpoint
from storm_hf.hub import repository
from storm_hf.hub.checkpoint_push import CheckpointPush
from storm_hf.hub.model_card import ModelFacts, write_card


# The client uploads in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks for it by its old name
)
REPO = "me/storm"
FACTS = ModelFacts(name="run", stage="answer", backbone="qwen2_5_vl", num_latents=2, num_parameters=10, num_steps=7)


@pytest.fixture(scope="module")
def saved(qwen_checkpoint, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("saved") / "storm", qwen_checkpoint)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "storm")


def push(folder, api, **options):
    return CheckpointPush(folder, REPO, api=api, **options).run()


def files(store, revision="main"):
    return set(store.repositories["model", REPO].files(revision))


def read_json(store, name):
    return json.loads(store.read(REPO, name, kind="model"))


def card(store):
    return store.read(REPO, "README.md", kind="model").decode()


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_weights_processor_code_statistics_and_card_are_published(folder, api, store):
    publication = push(folder, api)
    assert {
        "README.md",
        "assets/stages.png",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_storm.py",
        "processor_config.json",
        "rollout_storm.py",
        "storm_card.json",
        "tokenizer.json",
        "whitening.safetensors",
    } <= files(store)
    assert set(publication.files) == files(store)
    assert store.read(REPO, "model.safetensors", kind="model") == (folder / "model.safetensors").read_bytes()
    assert store.repositories["model", REPO].is_private


def test_what_training_leaves_stays_here(folder, api, store):
    before = {path.name for path in folder.rglob("*")}
    leave_what_training_leaves(folder)
    push(folder, api)
    assert {name.rpartition("/")[2] for name in files(store)} - before == {
        "README.md",
        "stages.png",
        "storm_card.json",
    }
    assert b"/home/somebody" not in b"".join(store.blobs.values())


def test_missing_code_and_generation_config_are_completed(folder, api, store):
    expected = {path.name for path in folder.glob("*.py")}
    for path in [*folder.glob("*.py"), folder / "generation_config.json"]:
        path.unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    push(folder, api)
    assert {name for name in files(store) if name.endswith(".py")} == expected
    assert read_json(store, "config.json")["auto_map"]["AutoModel"] == "modeling_storm.StormForConditionalGeneration"
    assert "generation_config.json" in files(store)


def test_code_of_another_repository_is_carried_instead_of_named(folder, api, store):
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    change(folder / "config.json", auto_map={name: f"you/old--{place}" for name, place in auto_map.items()})
    push(folder, api)
    assert read_json(store, "config.json")["auto_map"] == auto_map


def test_where_it_was_loaded_from_is_removed(folder, api, store):
    change(folder / "config.json", _name_or_path="/home/somebody/runs/storm")
    change(folder / "tokenizer_config.json", name_or_path="/home/somebody/qwen")
    push(folder, api)
    assert b"/home/somebody" not in b"".join(store.blobs.values())


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_path_of_this_machine_in_a_configuration_is_refused_by_name(folder, name):
    for value in CONFIGURED:
        change(folder / name, made={"features": value})
        with pytest.raises(PublicationError, match=rf"`made.features` in {name}"):
            CheckpointPush(folder, REPO).dry_run()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", SEEDS["further.safetensors"], "model.safetensors holds no whole safetensors"),
        ("chat_template.jinja", SECRETS["aws_id.ini"], "credentials .* chat_template.jinja"),
        ("assets/shown.png", SECRETS["picture.png"], "credentials .* assets/shown.png"),
        ("assets/shown.png", SEEDS["path_in_picture.png"], "assets/shown.png has '/home/jo/clips/1.mp4'"),
        ("model.safetensors", SEEDS["path_beside_weights.safetensors"], "model.safetensors has '/data/runs/7'"),
        ("thoughts/gallery.npz", SEEDS["objects.npz"], "pickled files .* thoughts/gallery.npz"),
        ("LICENSE", SECRETS["base64.txt"], "credentials .* LICENSE"),
        ("tokenizer.json", SECRETS["notebook.ipynb"], "credentials .* tokenizer.json"),
        ("config.json", SECRETS["password.json"], "credentials .* config.json"),
        ("README.md", "run /home/somebody/storm", "README.md has '/home/somebody/storm'"),
        ("README.md", SECRETS["hugging_face.md"], "credentials .* README.md"),
    ],
)
def test_what_must_not_leave_is_refused_before_anything_is_sent(folder, api, store, name, content, message):
    (folder / name).parent.mkdir(exist_ok=True)
    if name == "config.json":
        change(folder / name, **json.loads(content))
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PublicationError, match=message) as caught:
        push(folder, api)
    assert "A1b2C3" not in str(caught.value)
    assert not store.requests


def test_none_of_many_kinds_of_seeds_is_published(folder, api, store):
    known = {name for name in SEEDS if name.endswith(".safetensors")}  # named as weights: refused, not left out
    sow(folder, SEEDS.keys() - known)
    publication = push(folder, api)
    assert set(publication.left_out) == SEEDS.keys() - known
    assert publication.summary[0].startswith(f"left out: {len(SEEDS) - len(known)} files: ")
    published = b"".join(store.blobs.values())
    for content in SEEDS.values():
        assert (content if isinstance(content, bytes) else content.encode()) not in published or len(content) < 10


@pytest.mark.parametrize("pattern", ["*", "*.txt", "id_*"])
def test_seed_that_is_asked_for_is_refused(folder, api, store, pattern):
    sow(folder)
    with pytest.raises(PublicationError):
        push(folder, api, include=[pattern])
    assert not store.requests


def test_file_that_is_asked_for_is_published(folder, api, store):
    (folder / "notes").mkdir()
    (folder / "notes" / "method.md").write_text("How it was trained.")
    assert push(folder, api, include=["notes/*"]).left_out == ()
    assert "notes/method.md" in files(store)


def test_known_file_that_is_a_link_out_of_the_folder_is_refused(folder, api, store, tmp_path):
    (tmp_path / "diary.md").write_text("Dear diary")
    (folder / "LICENSE").symlink_to(tmp_path / "diary.md")
    with pytest.raises(PublicationError, match="LICENSE is a link that leads out"):
        push(folder, api)
    assert not store.requests


def test_snapshot_of_the_hub_is_published_though_its_files_are_links(folder, api, store, tmp_path):
    snapshot, blobs = tmp_path / "models--you--storm" / "snapshots" / "0123", tmp_path / "models--you--storm" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        shutil.move(path, blobs / path.name)
        (snapshot / path.name).symlink_to(blobs / path.name)
    push(snapshot, api)
    assert "model.safetensors" in files(store)


def test_dry_run_lists_what_a_push_publishes_without_token_and_network(folder, api, store):
    (folder / "notes.txt").write_text("x")
    preview = CheckpointPush(folder, REPO, api=HfApi(endpoint="http://127.0.0.1:1", token=False)).dry_run()
    assert not store.requests
    publication = push(folder, api)
    assert {name for name, _ in preview.files} == files(store)
    assert preview.card == card(store)
    assert preview.left_out == publication.left_out == ("notes.txt",)
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [("Apache-2.0", {"license": "apache-2.0"}), ("My Own", {"license": "other", "license_name": "my-own"})],
)
def test_licence_is_named_as_the_hub_knows_it(folder, api, store, given, named):
    assert "names no licence" in push(folder, api).summary[0]
    assert len(push(folder, api, license=given).summary) == 1
    metadata = ModelCard(card(store)).data.to_dict()
    assert {name: metadata.get(name) for name in named} == named


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("license: my own", "`license` must be a licence of the Hub's list"),
        ("base_model: a/b/c", "`base_model` must name repositories"),
        ("tags: storm", "`tags` must be a list"),
        ("license: [mit", "it is no YAML"),
    ],
)
def test_metadata_of_a_card_by_hand_is_checked_before_anything_is_sent(folder, api, store, head, message):
    (folder / "README.md").write_text(f"---\n{head}\n---\n\n# Mine\n")
    with pytest.raises(PublicationError, match=message):
        push(folder, api)
    assert not store.requests


def load(name):
    """Open what was pushed as its card says, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_checkpoint(name)[0]


@pytest.mark.parametrize("order", [("adapter", "model"), ("model", "adapter")], ids=" then ".join)
def test_adapter_and_whole_model_follow_each_other_in_one_repository(folder, api, store, tmp_path, order):
    (folder / "decoder").mkdir()
    (folder / "decoder" / "config.json").write_text("{}")
    (folder / "old.txt").write_text("x")
    CheckpointPush(folder, "me/base", api=api).run()
    kinds = {"model": folder, "adapter": write_adapter(tmp_path / "adapter", "me/base", folder)}
    for kind in order:
        include = ["old.txt"] if kind == "model" == order[0] else []
        push(kinds[kind], api, include=include)
        api.upload_file(path_or_fileobj=b"hello", path_in_repo="notes.md", repo_id=REPO)
    last = set(CheckpointPush(kinds[order[1]], REPO, api=api)._contents.files)
    assert files(store) == last | {"notes.md", "README.md", "storm_card.json"}
    snapshot = Path(api.snapshot_download(REPO, cache_dir=tmp_path / "cache"))
    if order[1] == "adapter":
        change(snapshot / "adapter_config.json", base_model_name_or_path=str(folder))
    assert load(snapshot).config.num_latents == NUM_LATENTS


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", "the weights model.safetensors"),
        ("processor_config.json", "the processor beside the model"),
    ],
)
def test_incomplete_checkpoint_is_refused(folder, api, store, missing, message):
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        push(folder, api)
    assert not store.repositories


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "st', "JSON in .*config.json but it is damaged: "),
        ("config.json", "[]", r"settings by their names in .*config.json but it holds \[\]"),
        ("generation_config.json", "", "JSON in .*generation_config.json but it is damaged: "),
    ],
)
def test_checkpoint_whose_settings_are_damaged_is_refused(folder, api, store, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        push(folder, api)
    assert not store.repositories


def test_every_shard_of_the_weights_must_be_there(folder, api):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": zeros(2)}, folder / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        push(folder, api)


def test_card_of_a_run_gets_the_name_of_its_repository(folder, api, store):
    write_card(FACTS, folder)
    push(folder, api)
    assert 'from_pretrained("me/storm", trust_remote_code=True)' in card(store)
    assert "Stage II" in card(store)
    assert read_json(store, "storm_card.json")["name"] == REPO


def test_card_of_a_checkpoint_without_a_run_has_its_numbers(folder, api, store):
    push(folder, api)
    assert "rolls out 2 continuous latent tokens" in card(store)
    assert "around a `qwen2_5_vl` backbone" in card(store)


def test_card_edited_by_hand_stays(folder, api, store):
    write_card(FACTS, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    push(folder, api)
    assert ModelCard(card(store)).content.endswith("# Mine\n")


def test_form_that_peft_leaves_is_no_card(folder, api, store):
    (folder / "README.md").write_text("# Model\n\n[More Information Needed]\n")
    push(folder, api)
    assert "## Quick start" in card(store)


def test_diagnosis_is_shown_in_the_card(folder, api, store, tmp_path):
    diagnosis = tmp_path / "diagnosis.json"
    diagnosis.write_text(json.dumps(DIAGNOSIS))
    push(folder, api, diagnosis=diagnosis)
    assert "| Another clip's | 0.100 (0.100 to 0.100) | 0.800 |" in card(store)


def test_evaluation_is_shown_in_the_card_with_its_command(folder, api, store, tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(REPORT))
    push(folder, api, evaluation=report)
    (result,) = ModelCard(card(store)).data.eval_results
    assert (result.metric_value, result.metric_args["scorer"]) == (0.625, "strict")
    assert result.metric_args["command"] == "storm evaluate --model storm --tasks mvbench"
    assert "| storm | 10.0 |" in card(store)
    assert "somebody" not in card(store)


@pytest.mark.parametrize("content", [None, "<html>"], ids=["missing", "no JSON"])
def test_report_that_cannot_be_read_is_refused_before_anything_is_sent(content, folder, api, store, tmp_path):
    report = tmp_path / "report.json"
    if content is not None:
        report.write_text(content)
    with pytest.raises(PublicationError, match=r"cannot read .*report\.json"):
        push(folder, api, evaluation=report)
    assert not store.repositories


@pytest.mark.parametrize("content", ["{}", "[1]"])
def test_report_of_something_else_is_refused_before_anything_is_sent(content, folder, api, store, tmp_path):
    report = tmp_path / "report.json"
    report.write_text(content)
    with pytest.raises(PublicationError, match=r"`storm evaluate` wrote but .* has no results and no costs"):
        push(folder, api, evaluation=report)
    with pytest.raises(PublicationError, match=r"`storm diagnose` wrote but .* has no verdict and no effects"):
        push(folder, api, diagnosis=report)
    assert not store.repositories


def test_adapter_is_published_with_the_name_of_its_base(saved, api, store, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", "me/base", saved)
    push(adapter, api)
    assert {"adapter_config.json", "adapter_model.safetensors", "storm_config.json", "README.md"} <= files(store)
    assert "config.json" not in files(store)
    assert ModelCard(card(store)).data.base_model == "me/base"


def test_adapter_of_a_folder_is_refused(saved, api, store, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", str(saved), saved)
    with pytest.raises(PublicationError, match="Publish the base first"):
        push(adapter, api)
    assert not store.repositories


def test_public_repository_is_not_pushed_to_unasked(folder, api, store):
    push(folder, api, public=True)
    assert not store.repositories["model", REPO].is_private
    with pytest.raises(PublicationError, match="everybody can see"):
        push(folder, api)


@pytest.mark.parametrize("name", ["https://huggingface.co/me/storm", "me/my storm", "me/storm/v2", ""])
def test_name_that_no_repository_can_have_is_refused_also_in_a_dry_run(folder, name):
    with pytest.raises(PublicationError, match=f"name of a repository on the Hub, such as me/storm, but got '{name}'"):
        CheckpointPush(folder, name).dry_run()


def test_revision_and_tag_name_the_version(folder, api, store):
    publication = push(folder, api, revision="next", tag="v1")
    refs = store.repositories["model", REPO].refs
    assert refs["tags/v1"] == refs["next"] == publication.commit
    assert not files(store, "main")


def test_weights_of_an_earlier_version_go_and_what_others_wrote_stays(folder, api, store):
    save_file({"a": zeros(2)}, folder / "old.safetensors")
    push(folder, api)
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="notes.md", repo_id=REPO)
    (folder / "old.safetensors").unlink()
    push(folder, api)
    assert "old.safetensors" not in files(store)
    assert {"notes.md", "model.safetensors"} <= files(store)


def test_small_files_are_announced_with_one_request_and_each_large_one_with_one(folder, api, store, monkeypatch):
    monkeypatch.setattr(repository, "SMALL_BYTES", 100_000)
    sent = []
    push(folder, api, on_uploaded=sent.append)
    of_the_card = 1  # which comes with the commit
    assert sum("/preupload/" in path for _, path in store.requests) == 2 + of_the_card
    assert sent[-1] == "model.safetensors"
    assert {*sent, "README.md", "storm_card.json"} <= files(store)


def test_cut_upload_is_completed_by_the_same_call_without_sending_twice(folder, api, store, monkeypatch):
    monkeypatch.setattr(repository, "SMALL_BYTES", 0)

    def cut_the_second(_):
        store.bytes_until_cut = 10 if store.uploads else None

    with pytest.raises(ServerError, match="same command"):
        push(folder, api, on_uploaded=cut_the_second)
    assert len(store.uploads) == 1
    assert files(store) == set()
    store.bytes_until_cut = None
    push(folder, api)
    assert len(store.uploads) == len(set(store.uploads)) == 3
    assert "model.safetensors" in files(store)


def test_token_that_may_not_write_is_told_in_one_sentence(folder, api, store):
    store.readers = {"hf_test"}
    with pytest.raises(ServerError, match="Expected to publish in me/storm") as caught:
        push(folder, api)
    assert "\n" not in str(caught.value)


def test_server_that_fails_at_the_commit_shows_nothing_and_the_same_call_goes_on(folder, api, store):
    store.failures = {"POST /api/models/me/storm/commit/": [500] * 9}
    with pytest.raises(ServerError, match="same command"):
        push(folder, api)
    assert files(store) == set()
    before = list(store.uploads)
    store.failures = {}
    push(folder, api)
    assert store.uploads == before
    assert "model.safetensors" in files(store)


KILLED = """
import os, signal, sys
from pathlib import Path
from huggingface_hub import HfApi
from storm_hf.evaluation import load_checkpoint
from storm_hf.hub import repository
from storm_hf.hub.checkpoint_push import CheckpointPush

repository.SMALL_BYTES = 0  # each file is a large one

def die_after_the_weights(name):
    if name == "model.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointPush(Path(sys.argv[1]), "me/storm", api=HfApi(token="hf_test"), on_uploaded=die_after_the_weights).run()
"""


@pytest.mark.slow
def test_killed_upload_is_completed_by_another_process(folder, api, store, url, tmp_path):
    env = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "h"),
    }
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=env, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(store.uploads) == 1
    assert files(store) == set()
    push(folder, api)
    assert len(store.uploads) == len(set(store.uploads)) == 3
