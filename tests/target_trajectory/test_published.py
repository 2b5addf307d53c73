"""Targets that travel with a data set are found where it lies."""

import logging

import numpy as np
import pytest
from safetensors.numpy import save_file

from storm_hf.errors import DatasetError
from storm_hf.target_trajectory import TargetTrajectory, find_targets


@pytest.fixture
def saved(tmp_path):
    features = np.random.default_rng(0).normal(size=(8, 4, 2, 6)).astype(np.float32)
    trajectory = TargetTrajectory.fit([features], num_latents=2, rank=3)
    trajectory.save(tmp_path)
    return trajectory


def test_folder_has_its_own(saved, tmp_path):
    found = find_targets(tmp_path)
    assert (found.num_latents, found.statistics.rank) == (2, 3)
    assert found.statistics.mean.equal(saved.statistics.mean)


def test_folder_without_targets_has_none(tmp_path):
    assert find_targets(tmp_path) is None


def test_file_of_another_is_refused(tmp_path):
    save_file({"mean": np.zeros(3, np.float32)}, tmp_path / "whitening.safetensors")
    with pytest.raises(DatasetError, match="holds no target trajectory"):
        find_targets(tmp_path)


def test_hub_that_is_away_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert find_targets("nobody/nothing") is None
    assert "targets are fitted anew" in caplog.text


def test_what_names_no_data_set_has_none(caplog):
    assert find_targets("not a name/of/anything") is None
    assert caplog.text == ""
