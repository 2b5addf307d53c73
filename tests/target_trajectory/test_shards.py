import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from storm_hf.errors import DatasetError
from storm_hf.target_trajectory import iterate_features, load_thoughts, storm_thoughts_features
from storm_hf.target_trajectory.shards import read_shard, shard_names, write_shard


COLUMNS = storm_thoughts_features(hidden_size=8, num_cells=2)


def row(index, num_patches=3):
    generator = np.random.default_rng(index)
    texts = {name: f"{name} {index}" for name, kind in COLUMNS.items() if getattr(kind, "dtype", "") == "string"}
    features = generator.normal(size=(num_patches, 2, 8)).astype(np.float16)
    return {**texts, "options": ["a", "b"], "thought_fps": 2.0, "seed": index, "thought_features": features}


def test_features_come_back_bit_for_bit_whatever_their_length(tmp_path):
    rows = [row(index, num_patches=2 + index % 3) for index in range(7)]
    write_shard(tmp_path / "shard.parquet", rows, COLUMNS)
    read = [clip for batch in iterate_features(read_shard(tmp_path / "shard.parquet"), batch_size=3) for clip in batch]
    assert len(read) == len(rows)
    for one, other in zip(rows, read, strict=True):
        assert other.dtype == np.float16
        np.testing.assert_array_equal(one["thought_features"], other)


def test_features_follow_the_order_of_a_shuffled_selection(tmp_path):
    rows = [row(index) for index in range(6)]
    write_shard(tmp_path / "shard.parquet", rows, COLUMNS)
    shard = read_shard(tmp_path / "shard.parquet")
    chosen = concatenate_datasets([shard, shard]).select([5, 0, 8])
    read = next(iterate_features(chosen))
    for index, clip in zip([5, 0, 2], read, strict=True):
        np.testing.assert_array_equal(clip, rows[index]["thought_features"])


def test_shard_keeps_schema_and_words(tmp_path):
    write_shard(tmp_path / "shard.parquet", [row(3)], COLUMNS)
    shard = read_shard(tmp_path / "shard.parquet")
    assert isinstance(shard, Dataset)
    assert shard.features == COLUMNS
    assert shard[0]["question"] == "question 3"
    assert shard[0]["options"] == ["a", "b"]


def test_same_rows_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_shard(tmp_path / name, [row(0), row(1)], COLUMNS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shards_cover_all_rows_in_order():
    names = shard_names("train", 1000, 512)
    assert list(names) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert [index for rows in names.values() for index in rows] == list(range(1000))


def test_row_with_a_missing_column_is_refused(tmp_path):
    incomplete = row(0)
    del incomplete["license"]
    with pytest.raises(DatasetError, match="license is missing or unknown"):
        write_shard(tmp_path / "shard", [incomplete], COLUMNS)


def test_features_of_another_shape_are_refused(tmp_path):
    other = {**row(0), "thought_features": np.zeros((3, 4, 8), np.float16)}
    with pytest.raises(DatasetError, match=r"\(temporal patches, 2, 8\).*\(3, 4, 8\)"):
        write_shard(tmp_path / "shard", [other], COLUMNS)


def test_folder_that_was_not_built_to_its_end_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="Run the builder again"):
        load_thoughts(tmp_path)


def test_world_has_what_its_simulator_knows():
    added = set(storm_thoughts_features(8, 2, is_world=True)) - set(COLUMNS)
    assert added == {"depth", "states", "chain_of_thought", "terse_chain", "clip_caption", "thought_caption"}
