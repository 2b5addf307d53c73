import numpy as np
import pytest
from datasets import Array3D, Dataset, Features, List, Value

from storm_hf.target_trajectory import TargetSettings
from storm_hf.target_trajectory.fitting import fit_targets
from storm_hf.target_trajectory.shards import FEATURES_COLUMN


NUM_CLIPS, NUM_STEPS, NUM_TILES, HIDDEN_SIZE = 240, 3, 12, 48
SETTINGS = TargetSettings(num_latents=NUM_STEPS, rank="auto", layout="concat")


@pytest.fixture(scope="module")
def patterns():
    """Tiles that are on or off, of which hardly two clips have the same."""
    return np.random.default_rng(0).integers(0, 2, (NUM_CLIPS, NUM_STEPS, NUM_TILES))


@pytest.fixture(scope="module")
def features(patterns):
    """Features (clips, steps, one cell, 48) whose first 20 components are layout; the tiles vary less."""
    generator = np.random.default_rng(1)
    layout = 5 * generator.standard_normal((NUM_CLIPS, NUM_STEPS, 20))
    noise = 0.01 * generator.standard_normal((NUM_CLIPS, NUM_STEPS, HIDDEN_SIZE - 20 - NUM_TILES))
    return np.concatenate([layout, 2.0 * patterns, noise], axis=-1)[:, :, None]


def shard(path, features, states):
    kinds = {FEATURES_COLUMN: Array3D((None, 1, HIDDEN_SIZE), "float16"), "states": List(Value("string"))}
    rows = {FEATURES_COLUMN: list(features.astype(np.float16)), "states": states}
    Dataset.from_dict(rows, features=Features(kinds)).to_parquet(path)
    return path


def words(patterns, word):
    return [[word(state) for state in clip] for clip in patterns]


def test_rank_of_states_that_hardly_come_twice_is_probed_character_by_character(tmp_path, features, patterns):
    states = words(patterns, lambda state: "".join(map(str, state)))
    trajectory, report = fit_targets([shard(tmp_path / "a.parquet", features, states)], SETTINGS)
    assert trajectory.statistics.rank == report.rank == 32
    assert report.accuracy[report.ranks.index(16)] < 0.8 < 0.99 < report.accuracy[report.ranks.index(32)]


def test_rank_of_states_that_come_again_is_probed_by_the_whole_state(tmp_path, features, patterns):
    states = words(patterns, lambda state: f"first {'on' if state[0] else 'off'}")
    _, report = fit_targets([shard(tmp_path / "a.parquet", features, states)], SETTINGS)
    assert report.rank == 32
    assert report.accuracy[-1] > 0.99


def test_variance_decides_where_states_can_be_compared_neither_whole_nor_by_character(tmp_path, features, patterns):
    states = words(patterns, lambda state: " ".join("on" if tile else "off" for tile in state))
    _, report = fit_targets([shard(tmp_path / "a.parquet", features, states)], SETTINGS)
    assert report.accuracy is None
