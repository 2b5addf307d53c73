"""A data set is pushed to a Hub over HTTP with the real client, and loaded back with the real one."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, HfApi, constants
from tests.builder.tiny_build import clips_and_annotations, tiny_recipe
from tests.hub.conftest import VIDEO, change_column, row_of, write_dataset
from tests.hub.seeds import SECRETS, SEEDS, sow

from storm_hf.builder import ThoughtsBuilder
from storm_hf.errors import DatasetError, PublicationError, ServerError
from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.push import _HOST, DatasetPush
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.target_trajectory.schema import CLIP_COLUMNS


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
    expected = {
        f"q{n}": [VIDEO.decode() + f"{kind} of q{n}" * 50 for kind in ("video", "thought_video")] for n in (0, 1, 4, 5)
    }
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
    assert "4 rows have a clip that may not be redistributed. They are published with the features" in card


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
    with pytest.raises(
        ServerError, match=r"http://127.0.0.1:1 cannot be reached \(.+\)\. Nothing was published\."
    ) as caught:
        push(folder, HfApi(endpoint="http://127.0.0.1:1", token="hf_test"))
    assert "\n" not in str(caught.value)


def test_client_that_is_kept_offline_is_told_in_one_sentence(folder, api, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    with pytest.raises(ServerError, match=r"but HF_HUB_OFFLINE keeps .* Unset it, .* Nothing was published\.$"):
        push(folder, api)


def test_token_that_the_server_does_not_know_is_told_in_one_sentence(folder, url):
    with pytest.raises(ServerError, match="hf auth login"):
        push(folder, HfApi(endpoint=url, token="hf_other"))


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


def test_file_of_no_known_kind_is_left_out_and_named(folder, api, store):
    sow(folder)
    (folder / ".env").write_text("KEY=1")
    (folder / "data" / "cache.pt").write_text("x")
    publication = push(folder, api)
    assert set(publication.left_out) == {*SEEDS, ".env", "data/cache.pt"}
    assert not set(SEEDS) & {name.rpartition("/")[2] for name in files(store)}
    assert SECRETS["openai.log"].encode() not in b"".join(store.blobs.values())
    assert publication.summary[-2].startswith(f"left out: {len(SEEDS) + 2} files: .env, a.pickle, a.pth, ")


def test_file_that_is_asked_for_is_published(folder, api, store):
    (folder / "notes.md").write_text("What the clips show.")
    assert push(folder, api, include=["*.md"]).left_out == ()
    assert store.read(REPO, "notes.md") == b"What the clips show."
    assert "notes.md" in json.loads(store.read(REPO, "manifest.json"))["sha256"]


@pytest.mark.parametrize("name", ["openai.log", "pickled.dat", "path.md"])
def test_file_that_is_asked_for_is_looked_through(folder, api, store, name):
    sow(folder, [name])
    with pytest.raises(PublicationError, match=name):
        push(folder, api, include=[name])
    assert not store.requests


@pytest.mark.parametrize("pattern", ["*.md", ".env", "work/*", "manifest.json", "../*"])
def test_pattern_of_nothing_that_may_be_published_is_refused(folder, api, pattern):
    (folder / ".env").write_text("KEY=1")
    with pytest.raises(PublicationError, match="none matches"):
        push(folder, api, include=[pattern])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("question", ["What is in /home/somebody/q0.mp4?", "b", "c", "d"], "column question"),
        ("options", [["a", "hf_" + "a" * 34], [], [], []], "credentials .* column options"),
        ("note", [{"words": ["~/clips/q0.mp4"]}] * 4, "column note"),
        ("cache", [b"x"] * 4, "column cache .* holds binary"),
    ],
)
def test_what_must_not_leave_in_a_column_is_refused_before_anything_is_sent(
    folder, api, store, column, values, message
):
    change_column(folder, column, values, shard=1)
    with pytest.raises(PublicationError, match=message):
        push(folder, api)
    assert not store.requests


@pytest.mark.parametrize("has_columns", [True, False], ids=["columns", "records"])
def test_licence_is_that_of_the_clip_by_columns_or_by_records(tmp_path, api, store, has_columns):
    publication = push(write_dataset(tmp_path / "built", has_columns=has_columns), api)
    assert publication.withheld == {"proprietary": 2, "unknown": 2}


def test_copy_without_working_files_publishes_what_the_original_would(folder, api, store):
    shutil.rmtree(folder / "work")
    assert push(folder, api).withheld == {"proprietary": 2, "unknown": 2}
    rows = table(store, "data/train-00000-of-00002.parquet").to_pylist()
    assert [row["clip_license"] for row in rows] == ["CC0-1.0", "CC-BY-4.0", "proprietary", "unknown"]


@pytest.mark.parametrize(
    ("source", "num_withheld"), [("future", 4), ("diffusers", 4), ("folder", 4), ("simulator", 0)]
)
def test_without_provenance_a_clip_is_withheld_unless_a_simulator_drew_it(tmp_path, api, store, source, num_withheld):
    folder = write_dataset(tmp_path / "built", num_shards=1, has_columns=False)
    shutil.rmtree(folder / "work")
    change_column(folder, "thought_source", [source] * 4)
    change_column(folder, "license", ["Apache-2.0"] * 4)
    assert sum(push(folder, api).withheld.values()) == num_withheld
    clips = [row["video"] is not None for row in table(store, "data/train-00000-of-00001.parquet").to_pylist()]
    assert clips == [num_withheld == 0] * 4


def test_row_that_the_records_do_not_name_has_no_licence(folder, api):
    for name in CLIP_COLUMNS:
        change_column(folder, name, None)
    change_column(folder, "thought_source", ["simulator"] * 4)
    (folder / "work/30_thought_videos/train-00000.jsonl").write_text("")
    assert push(folder, api).withheld == {"unknown": 5, "proprietary": 1}


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes(VIDEO + b"a secret film")
    return path


@pytest.mark.parametrize("way", ["beside", "absolute", "link", "linked folder"])
@pytest.mark.parametrize("column", ["video", "thought_video"])
def test_file_outside_of_the_data_set_never_leaves(folder, api, store, secret, way, column):
    (folder / "link.mp4").symlink_to(secret)
    (folder / "linked").symlink_to(secret.parent)
    ways = {
        "beside": "../secret.mp4",
        "absolute": str(secret),
        "link": "link.mp4",
        "linked folder": "linked/secret.mp4",
    }
    change_column(folder, column, [ways[way], None, None, None])
    with pytest.raises(PublicationError, match="outside of it"):
        push(folder, api)
    assert not store.requests


def test_clip_that_the_build_recorded_is_published_from_where_it_lies(folder, api, store, secret):
    records = folder / "work/30_thought_videos/train-00000.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    lines[0]["annotation"]["video"] = str(secret)
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change_column(folder, "video", [str(secret), None, None, None])
    push(folder, api)
    row = table(store, "videos/train-00000-of-00002.parquet").to_pylist()[0]
    assert row["video"]["bytes"] == secret.read_bytes()
    assert row["video"]["path"].startswith("videos/clips/")


def test_shard_that_is_a_link_out_of_the_folder_is_refused(folder, api, store, tmp_path):
    shard = folder / "data" / "train-00000-of-00002.parquet"
    shard.rename(tmp_path / "other.parquet")
    shard.symlink_to(tmp_path / "other.parquet")
    with pytest.raises(PublicationError, match="link that leads out"):
        push(folder, api)
    assert not store.requests


def test_file_that_is_no_video_is_not_published_as_one(folder, api, store):
    (folder / row_of(0)["video"]).write_text("root:x:0:0")
    with pytest.raises(PublicationError, match="the file is none"):
        push(folder, api)
    assert not store.requests


def test_metadata_that_the_server_refuses_is_told_in_a_sentence_before_a_shard_is_sent(
    folder, api, store, monkeypatch
):
    monkeypatch.setattr("tests.hub.server.metadata_problems", lambda text, kind: ['"license" must be one of [mit]'])
    with pytest.raises(PublicationError, match=r'"license" must be one of \[mit\]. Correct the card') as caught:
        push(folder, api)
    assert "\n" not in str(caught.value)
    assert not store.uploads


def test_dry_run_lists_what_a_push_publishes_without_token_and_network(folder, api, store):
    (folder / "notes.md").write_text("What the clips show.")
    options = {"include": ["notes.md"], "tag": "v1"}
    preview = DatasetPush(folder, REPO, api=HfApi(endpoint="http://127.0.0.1:1", token=False), **options).dry_run()
    assert not store.requests
    push(folder, api, **options)
    assert {name for name, _ in preview.files} == files(store)
    assert all(size > 0 for _, size in preview.files)
    assert "| proprietary | 2 | 0 |" in preview.card
    assert preview.summary[-1] == f"Dry run: nothing was sent. {len(preview.files)} files would go to {REPO}."
    assert "2 clips with the licence 'unknown' withheld" in preview.summary[1]


def test_folders_that_killed_pushes_left_are_removed(folder, api, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = f"storm-push-{_HOST}"
    left = [f"{name}-{dead.pid}-abc", f"{name}-{os.getpid()}-abc", "storm-push-elsewhere-1-abc", f"other-{dead.pid}-a"]
    for each in left:
        (tmp_path / each).mkdir()
    push(folder, api)
    assert [each for each in left if (tmp_path / each).exists()] == left[1:]
    assert len(list(tmp_path.glob("storm-push-*"))) == 2


@pytest.mark.parametrize(("name", "message"), [("config.json", "holds a model"), ("other.txt", "no manifest.json")])
def test_folder_without_data_set_is_refused(tmp_path, name, message):
    (tmp_path / name).write_text("{}")
    with pytest.raises(DatasetError, match=message):
        DatasetPush(tmp_path, REPO).run()


def test_what_the_builder_wrote_is_published(qwen_checkpoint, api, store, tmp_path):
    annotations = clips_and_annotations(tmp_path / "raw", 4)
    ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path / "built")).build()
    shutil.rmtree(tmp_path / "built" / "work")  # the shards alone say where the clips come from
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
