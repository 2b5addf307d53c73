"""A data set is pushed to a Hub over HTTP with the real client, and loaded back with the real one."""

import io
import json
import os
import subprocess
import sys
from hashlib import sha256

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, HfApi
from tests.builder.tiny_build import clips_and_annotations, tiny_recipe
from tests.hub.conftest import VIDEO, write_dataset

from storm_hf.builder import ThoughtsBuilder
from storm_hf.errors import DatasetError, PublicationError, ServerError
from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.push import DatasetPush
from storm_hf.target_trajectory import TargetTrajectory


# The client uploads in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "me/thoughts"


def push(folder, api, **options):
    return DatasetPush(folder, REPO, api=api, **options).run()


def table(store, name):
    return pq.read_table(io.BytesIO(store.read(REPO, name)))


def files(store, revision="main"):
    return set(store.repositories["dataset", REPO].files(revision))


LOADER = """
import json
from datasets import load_dataset
whole = load_dataset("me/thoughts")["train"]
streamed = load_dataset("me/thoughts", split="train", streaming=True, columns=["id", "thought_features"])
videos = load_dataset("me/thoughts", "videos", split="train")
print(json.dumps({
    "whole": whole["id"][:],
    "feature": whole[1]["thought_features"][1][3][7],
    "streamed": [sorted(row) + [row["id"]] for row in streamed],
    "videos": {row["id"]: row["video"]["bytes"].decode() for row in videos},
}))
"""
ROW_LOADER = """
import json
from storm_hf.training.loading import load_rows
rows = load_rows("me/thoughts")["train"]
print(json.dumps({row["id"]: [open(row[name]).read() for name in ("video", "thought_video")] for row in rows}))
"""


def run_client(code, url, home):
    """Run code in a process whose clients know this Hub and no other, and read the JSON it prints."""
    env = os.environ | {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(home)}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_pushed_data_set_is_loaded_whole_and_streaming(folder, api, url, store, tmp_path):
    push(folder, api)
    loaded, _ = run_client(LOADER, url, tmp_path / "loader")
    assert loaded["whole"] == [f"q{number}" for number in range(8)]
    assert loaded["feature"] == 1.0
    assert loaded["streamed"] == [["id", "thought_features", f"q{number}"] for number in range(8)]
    assert loaded["videos"] == {f"q{number}": VIDEO.decode() + f"video of q{number}" * 50 for number in (0, 1, 4, 5)}


@pytest.mark.slow
def test_training_finds_the_videos_of_a_pushed_data_set(folder, api, url, tmp_path):
    push(folder, api)
    rows, messages = run_client(ROW_LOADER, url, tmp_path / "loader")
    expected = {f"q{n}": [VIDEO.decode() + f"{kind} of q{n}" * 50 for kind in ("video", "thought_video")] for n in (0, 1, 4, 5)}
    assert rows == expected
    assert "4 of 8 rows are left out" in messages


def test_features_are_loaded_without_pulling_video(folder, api, store):
    push(folder, api)
    assert b"video of q0" not in store.read(REPO, "data/train-00000-of-00002.parquet")
    assert b"video of q0" in store.read(REPO, "videos/train-00000-of-00002.parquet")


def test_row_whose_licence_forbids_it_has_features_and_a_name_only(folder, api, store):
    publication = push(folder, api)
    rows = table(store, "data/train-00000-of-00002.parquet").to_pylist()
    assert [row["video"] is None for row in rows] == [False, False, True, True]
    assert [row["thought_video"] is None for row in rows] == [False, False, True, True]
    assert [row["clip_license"] for row in rows] == ["CC0-1.0", "CC-BY-4.0", "proprietary", "unknown"]
    assert rows[2]["clip_file"] == "q2.mp4"
    assert rows[2]["thought_features"]
    assert publication.withheld == {"proprietary": 2, "unknown": 2}
    everything = b"".join(store.blobs.values())
    assert b"video of q2" not in everything
    card = store.read(REPO, "README.md").decode()
    assert "| proprietary | 2 | 0 |" in card
    assert "4 rows have a clip whose licence does not let us pass it on" in card


def test_rule_can_allow_and_deny(folder, api, store):
    rule = LicenseRule(allowed=frozenset({"proprietary"}), denied=frozenset({"cc-by"}))
    assert push(folder, api, rule=rule).withheld == {"CC-BY-4.0": 2, "unknown": 2}


def test_thought_video_needs_a_licence_of_its_own(folder, api, store):
    shard = folder / "data" / "train-00000-of-00002.parquet"
    old = pq.read_table(shard)
    licenses = old.schema.get_field_index("license")
    pq.write_table(old.set_column(licenses, "license", [["other"] * 4]), shard)
    push(folder, api)
    rows = table(store, "data/train-00000-of-00002.parquet").to_pylist()
    assert rows[0]["video"] is not None
    assert rows[0]["thought_video"] is None


def test_reference_publishes_no_video(folder, api, store):
    push(folder, api, embeds=False)
    assert not [name for name in files(store) if name.startswith("videos/")]
    card = DatasetCard(store.read(REPO, "README.md").decode())
    assert [config["config_name"] for config in card.data.configs] == ["features"]
    assert "No videos are published here" in card.content


def test_cut_upload_is_completed_by_the_same_command_without_sending_twice(folder, api, store):

    def cut_the_third(_):
        store.bytes_until_cut = 1000 if len(store.uploads) == 2 else None

    with pytest.raises(ServerError, match="same command"):
        push(folder, api, on_uploaded=cut_the_third)
    before = list(store.uploads)
    assert len(before) == 2
    assert files(store) == set()
    store.bytes_until_cut = None
    push(folder, api)
    assert len(store.uploads) == len(set(store.uploads)) == 5
    assert store.uploads[: len(before)] == before
    assert len([name for name in files(store) if name.endswith(".parquet")]) == 4


def test_new_shards_are_appended_without_sending_the_old_ones(folder, api, store, tmp_path):
    push(folder, api)
    before = len(store.uploads)
    push(write_dataset(tmp_path / "larger", num_shards=3), api)
    assert len(store.uploads) == before + 2
    shards = {f"train-{number:05d}-of-00003.parquet" for number in range(3)}
    assert {name for name in files(store) if name.startswith("data/")} == {f"data/{name}" for name in shards}


def test_manifest_has_the_hashes_of_what_was_published(folder, api, store):
    push(folder, api)
    hashes = json.loads(store.read(REPO, "manifest.json"))["sha256"]
    assert set(hashes) == files(store) - {"README.md", "manifest.json", "fingerprint.json"}
    assert {name: sha256(store.read(REPO, name)).hexdigest() for name in hashes} == hashes


def test_server_that_is_not_there_is_told_in_one_sentence(folder, url):
    with pytest.raises(ServerError, match="Expected to publish in me/thoughts"):
        push(folder, HfApi(endpoint="http://127.0.0.1:1", token="hf_test"))


def test_repository_is_private_unless_public_is_asked_for(folder, api, store):
    assert push(folder, api).is_public is False
    assert store.repositories["dataset", REPO].is_private
    push(folder, api, public=True)
    assert not store.repositories["dataset", REPO].is_private
    with pytest.raises(PublicationError, match="everybody can see"):
        push(folder, api)


def test_revision_and_tag_name_the_version(folder, api, store):
    publication = push(folder, api, revision="next", tag="v1")
    repository = store.repositories["dataset", REPO]
    assert repository.refs["tags/v1"] == repository.refs["next"] == publication.commit
    assert not files(store, "main")
    assert "manifest.json" in files(store, "next")


def test_nothing_published_names_a_folder_of_this_machine(folder, api, store):
    push(folder, api)
    assert b"/home/somebody" not in b"".join(store.blobs.values())
    assert json.loads(store.read(REPO, "fingerprint.json"))["data"]["parameters"]["encoder"] == "qwen-tiny"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "the token is hf_" + "a" * 34, "credentials"),
        (".env", "KEY=1", "credentials"),
        ("model.pkl", "x", "pickled"),
        ("data/cache.pt", "x", "pickled"),
    ],
)
def test_what_must_not_leave_is_refused_before_anything_is_sent(folder, api, store, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(PublicationError, match=message) as caught:
        push(folder, api)
    assert "aaaa" not in str(caught.value)
    assert not store.repositories


def test_path_of_this_machine_within_a_question_is_refused(folder, api, store):
    shard = folder / "data" / "train-00000-of-00002.parquet"
    old = pq.read_table(shard)
    texts = [["What is in /home/somebody/q0.mp4?", "b", "c", "d"]]
    pq.write_table(old.set_column(old.schema.get_field_index("question"), "question", texts), shard)
    with pytest.raises(PublicationError, match="column question"):
        push(folder, api)
    assert not store.uploads


@pytest.mark.parametrize(("name", "message"), [("config.json", "holds a model"), ("other.txt", "no manifest.json")])
def test_folder_without_data_set_is_refused(tmp_path, name, message):
    (tmp_path / name).write_text("{}")
    with pytest.raises(DatasetError, match=message):
        DatasetPush(tmp_path, REPO).run()


def test_what_the_builder_wrote_is_published(qwen_checkpoint, api, store, tmp_path):
    annotations = clips_and_annotations(tmp_path / "raw", 4)
    ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path / "built")).build()
    assert push(tmp_path / "built", api).withheld == {}
    rows = table(store, "videos/train-00000-of-00002.parquet").to_pylist()
    for row in rows:
        for column in ("video", "thought_video"):
            assert row[column]["bytes"] == (tmp_path / "built" / row[column]["path"]).read_bytes()
    published = b"".join(store.blobs.values())
    assert str(tmp_path).encode() not in published
    card = DatasetCard(store.read(REPO, "README.md").decode())
    assert card.data.license == "cc0-1.0"
    assert "| annotations | 4 |" in card.content


TARGETS_LOADER = """
import json
from storm_hf import StormAlignConfig
from storm_hf.align.targets import saved_trajectory
args = StormAlignConfig("unused", use_cpu=True, report_to="none")
found = saved_trajectory("me/thoughts", 2, args)
print(json.dumps({
    "mean": found.statistics.mean.flatten().tolist(),
    "rank": found.statistics.rank,
    "missing": saved_trajectory("me/nothing", 2, args),
}))
"""


@pytest.mark.slow
def test_training_takes_the_whitening_of_a_pushed_data_set(qwen_checkpoint, api, url, store, tmp_path):
    annotations = clips_and_annotations(tmp_path / "raw", 4)
    ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path / "built")).build()
    push(tmp_path / "built", api)
    found, _ = run_client(TARGETS_LOADER, url, tmp_path / "home")
    own = TargetTrajectory.load(tmp_path / "built").statistics
    assert found == {"mean": own.mean.flatten().tolist(), "rank": 4, "missing": None}
