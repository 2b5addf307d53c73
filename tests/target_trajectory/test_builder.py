import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from storm_hf.errors import DatasetError, StaleWorkError
from storm_hf.target_trajectory import (
    TargetSettings,
    TargetTrajectory,
    build_thoughts,
    encode_frames,
    iterate_features,
    load_thoughts,
)
from storm_hf.target_trajectory.schema import MANIFEST
from storm_hf.target_trajectory.shards import read_manifest
from storm_hf.thought_video import ThoughtExample, ThoughtVideo, WorldRecipe, render_world
from storm_hf.video import read_video


RECIPE = WorldRecipe.from_dict(
    {
        "world": "shuffle",
        "knobs": {"num_steps": 2, "min_swaps": 0, "max_swaps": 2},
        "splits": {
            "train": {"count": 10},
            "validation": {"count": 2},
            "test": {"depths": {0: 1, 2: 2}},
            "longer": {"count": 2, "knobs": {"num_steps": 3, "max_swaps": 3}},
        },
    }
)
SETTINGS = TargetSettings(num_latents=2, rank=8)


@pytest.fixture(scope="module")
def backbone(qwen_checkpoint):
    return AutoModelForImageTextToText.from_pretrained(qwen_checkpoint), AutoProcessor.from_pretrained(qwen_checkpoint)


def build(folder, backbone, settings=SETTINGS, recipe=RECIPE, **options):
    options = {"encoder": "tiny", "rows_per_shard": 4, **options}
    return build_thoughts(folder, render_world(recipe, folder), *backbone, settings, **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory, backbone):
    """A finished data set, shared: read only."""
    folder = tmp_path_factory.mktemp("thoughts")
    build(folder, backbone)
    return folder


def contents(folder):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_load_dataset_opens_every_split(built):
    splits = load_dataset(str(built))
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 10,
        "validation": 2,
        "test": 3,
        "longer": 2,
    }
    row = splits["test"][2]
    assert row["answer"] in row["options"]
    assert (row["depth"], row["thought_source"], row["encoder"]) == (2, "simulator", "tiny")


def test_videos_are_found_from_anywhere(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = load_thoughts(built)["longer"][0]
    assert len(read_video(row["video"]).frames) == 8
    assert len(read_video(row["thought_video"]).frames) == 6


def test_data_set_can_be_moved(built, tmp_path):
    moved = shutil.copytree(built, tmp_path / "moved")
    assert Path(load_thoughts(moved)["train"][0]["video"]).is_relative_to(moved)


def test_folder_may_be_named_relative_or_absolute(built, backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = render_world(RECIPE, tmp_path / "data")
    build_thoughts("data", examples, *backbone, SETTINGS, encoder="tiny", rows_per_shard=4)
    assert contents("data") == contents(built)


def test_features_are_those_of_the_thought_file(built, backbone):
    train = load_thoughts(built)["train"]
    stored = [clip for batch in iterate_features(train) for clip in batch]
    row = 7
    expected = encode_frames(*backbone, [read_video(train[row]["thought_video"]).frames], fps=2.0)[0]
    np.testing.assert_allclose(stored[row], expected, atol=2e-3)


def test_whitening_is_that_of_the_training_split_alone(built):
    splits = load_thoughts(built)
    saved = TargetTrajectory.load(built)
    fitted = TargetTrajectory.fit(iterate_features(splits["train"]), num_latents=2, rank=8)
    features = next(iterate_features(splits["test"]))
    torch.testing.assert_close(saved(features), fitted(features))


def test_longer_videos_than_trained_have_targets(built):
    features = next(iterate_features(load_thoughts(built)["longer"]))
    assert TargetTrajectory.load(built).with_num_latents(3)(features).shape == (2, 3, 32)


def test_interrupted_build_ends_with_the_bytes_of_an_uninterrupted_one(built, backbone, tmp_path):
    def interrupt(shard):
        if shard.name.startswith("train-00001"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, backbone, on_finished=interrupt)
    assert not (tmp_path / MANIFEST).exists()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("data/*.parquet")}
    assert len(finished) == 2
    build(tmp_path, backbone)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert contents(tmp_path) == contents(built)


def test_other_weights_are_refused_by_name(built, backbone, qwen_checkpoint, tmp_path):
    folder = shutil.copytree(built, tmp_path / "copy")
    other = AutoModelForImageTextToText.from_pretrained(qwen_checkpoint)
    with torch.no_grad():
        next(other.base_model.visual.parameters()).add_(1)
    with pytest.raises(StaleWorkError, match="encoder_revision was"):
        build(folder, (other, backbone[1]))
    assert read_manifest(folder) == read_manifest(built)


def test_more_examples_are_refused_rather_than_mixed_in(built, backbone, tmp_path):
    folder = shutil.copytree(built, tmp_path / "copy")
    larger = WorldRecipe(
        RECIPE.world, {**RECIPE.splits, "train": type(RECIPE.splits["train"])(count=12)}, RECIPE.knobs
    )
    with pytest.raises(StaleWorkError, match=r"splits\.train\.rows was 10 and is now 12"):
        build(folder, backbone, recipe=larger)


def test_other_targets_need_no_encoding(built, backbone, tmp_path):
    folder = shutil.copytree(built, tmp_path / "copy")
    shards = {path: path.stat().st_mtime_ns for path in folder.glob("data/*.parquet")}
    build(folder, backbone, TargetSettings(num_latents=1, rank=4, layout="concat"))
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert TargetTrajectory.load(folder).layout == "concat"
    assert read_manifest(folder)["settings"]["rank"] == 4


def test_chosen_rank_is_recorded_with_its_reason(built, backbone, tmp_path, caplog):
    folder = shutil.copytree(built, tmp_path / "copy")
    report = build(folder, backbone, TargetSettings(num_latents=2, rank="auto"))
    assert (
        "1 of 1 parts of the state" in caplog.text
    )  # the states were probed, and a random backbone does not see them
    assert TargetTrajectory.load(folder).statistics.rank == report.rank_report.rank
    recorded = json.loads((folder / MANIFEST).read_text())["rank_report"]
    assert recorded == json.loads(json.dumps(report.rank_report.to_dict()))


def test_videos_of_any_generator_make_a_data_set(backbone, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 56, 56, 3), dtype=np.uint8)
    provenance = {"source": "future", "generator": "g", "generator_revision": "1", "license": "CC0-1.0"}
    examples = [
        ThoughtExample(
            id=f"row-{index}",
            video=tmp_path / "elsewhere.mp4",
            question="What happens next?",
            options=(),
            answer="nothing",
            thought=ThoughtVideo(fps=1.0 + index % 2, seed=index, frames=clip, **provenance),
        )
        for index, clip in enumerate(frames)
    ]
    build_thoughts(tmp_path, {"train": examples}, *backbone, TargetSettings(2), encoder="tiny")
    train = load_thoughts(tmp_path)["train"]
    assert "depth" not in train.column_names
    assert train["thought_fps"][:] == [1.0, 2.0, 1.0, 2.0, 1.0]
    assert train[0]["thought_video"] is None
    assert train[0]["video"] == str(tmp_path / "elsewhere.mp4")


def test_data_set_without_training_split_is_refused(backbone, tmp_path):
    with pytest.raises(DatasetError, match="train"):
        build_thoughts(tmp_path, {"test": []}, *backbone, SETTINGS, encoder="tiny")
