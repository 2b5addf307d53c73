"""Batches of Stage I are those of the answer, with target trajectories beside them."""

import numpy as np
import pytest
import torch
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts
from torch.testing import assert_close

from storm_hf.align.collator import AlignCollator
from storm_hf.errors import DatasetError
from storm_hf.inputs.collator import AnswerCollator
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.training.loading import load_rows


NUM_LATENTS = 3


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"), num_rows=4)))["train"].to_list()


@pytest.fixture(scope="module")
def answers(qwen_checkpoint):
    return AnswerCollator(prompt_encoder(*load_tiny(qwen_checkpoint, NUM_LATENTS)))


@pytest.fixture(scope="module")
def trajectory():
    return TargetTrajectory(NUM_LATENTS, normalize="none")


def test_batch_is_that_of_the_answer_with_targets(answers, trajectory, rows):
    batch = AlignCollator(answers, trajectory)(rows)
    targets = batch.pop("target_trajectory")
    assert targets.shape == (4, NUM_LATENTS, 32)
    expected = answers(rows)
    assert batch.keys() == expected.keys()
    for name, tensor in batch.items():
        assert torch.equal(tensor, expected[name]), name


def test_targets_are_pooled_from_each_rows_own_thought_video(answers, trajectory, rows):
    targets = AlignCollator(answers, trajectory)(rows)["target_trajectory"]
    for row, target in zip(rows, targets, strict=True):
        features = torch.tensor(np.asarray(row["thought_features"]), dtype=torch.float32)  # six patches, two a slot
        assert_close(target, features.reshape(NUM_LATENTS, 2 * 4, 32).mean(dim=1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("remove", [True, False], ids=["no column", "empty column"])
def test_rows_without_thoughts_are_refused(answers, trajectory, rows, remove):
    bare = {name: value for name, value in rows[0].items() if name != "thought_features"}
    with pytest.raises(DatasetError, match="Stage I needs the column `thought_features`"):
        AlignCollator(answers, trajectory)([bare if remove else {**bare, "thought_features": None}])
