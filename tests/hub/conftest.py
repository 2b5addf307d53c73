import json
from contextlib import contextmanager

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file
from tests.hub.server import serve
from tests.hub.store import Store

from storm_hf.target_trajectory.schema import CLIP_COLUMNS, storm_thoughts_features
from storm_hf.target_trajectory.shards import write_shard


VIDEO = b"\x00\x00\x00\x18ftypmp42"  # how an mp4 begins
CLIP_LICENSES = ("CC0-1.0", "CC-BY-4.0", "proprietary", "unknown")


def row_of(number, split="train"):
    return {
        "id": f"q{number}",
        "video": f"videos/clips/{split}-00000/q{number}.mp4",
        "question": f"What happens next, number {number}?",
        "options": ["left", "right"],
        "answer": "left",
        "thought_features": np.full((2, 4, 8), number, np.float16),
        "thought_fps": 4.0,
        "thought_source": "future",
        "thought_prompt": "",
        "thought_video": f"videos/thoughts/{split}-00000/q{number}.mp4",
        "seed": number,
        "generator": "future",
        "generator_revision": "1",
        "encoder": "/home/somebody/qwen-tiny",
        "encoder_revision": "0123abcd",
        "license": CLIP_LICENSES[number % 4],
        "clip_source": "street",
        "clip_license": CLIP_LICENSES[number % 4],
        "clip_file": f"q{number}.mp4",
    }


def write_dataset(folder, num_shards=2, *, has_columns=False):
    """A folder as a builder leaves it; its videos are any bytes. Row 0 and 1 of 4 may be passed on, 2 and 3 may not.

    Without columns, provenance stands in the records of the build alone, as builds before the columns left it.
    """
    (folder / "data").mkdir(parents=True)
    records = folder / "work" / "30_thought_videos"
    records.mkdir(parents=True)
    features = storm_thoughts_features(8, 4)
    if not has_columns:
        features = features.__class__({name: kind for name, kind in features.items() if name not in CLIP_COLUMNS})
    names = [f"train-{number:05d}-of-{num_shards:05d}.parquet" for number in range(num_shards)]
    for shard, name in enumerate(names):
        rows = [row_of(number) for number in range(4 * shard, 4 * shard + 4)]
        write_shard(folder / "data" / name, [{each: row[each] for each in features} for row in rows], features)
        for row in rows:
            for column in ("video", "thought_video"):
                path = folder / row[column]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(VIDEO + f"{column} of {row['id']}".encode() * 50)
        lines = [
            {
                "annotation": {
                    "id": row["id"],
                    "source": "street",
                    "license": row["license"],
                    "video": f"/home/somebody/raw/{row['id']}.mp4",
                }
            }
            for row in rows
        ]
        (records / f"train-{shard:05d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_file({"mean": np.zeros(8, np.float32)}, folder / "whitening.safetensors")
    parameters = {"encoder": "/home/somebody/qwen-tiny", "source": "/home/somebody/raw/annotations.jsonl"}
    (folder / "fingerprint.json").write_text(json.dumps({"data": {"hash": "1", "parameters": parameters}}))
    manifest = {
        "num_rows": {"train": 4 * num_shards},
        "num_rejected": {"30_thought_videos": {"unreadable": 3}},
        "feature_shape": [4, 8],
        "encoder": "/home/somebody/qwen-tiny",
        "encoder_revision": "0123abcd",
        "settings": {"num_latents": 2, "rank": 4},
        "sha256": {f"data/{name}": "0" for name in names},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change_column(folder, name, values, shard=0):
    """Give the rows of a shard other values in a column of texts, or take the column away with None."""
    path = sorted((folder / "data").glob("*.parquet"))[shard]
    table = pq.read_table(path)
    index = table.schema.get_field_index(name)
    if index >= 0:
        table = table.remove_column(index)
    if values is not None:
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "built", has_columns=True)


@contextmanager
def online(monkeypatch, url, home):
    """Let the clients of this process talk to a Hub, instead of to nobody."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    huggingface_hub.close_session()
    yield url
    huggingface_hub.close_session()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def url(store, monkeypatch, tmp_path):
    with serve(store) as url, online(monkeypatch, url, tmp_path / "hf"):
        yield url


@pytest.fixture
def api(url):
    return huggingface_hub.HfApi(endpoint=url, token="hf_test")
