"""Noise on what teacher forcing feeds: on the inputs alone, and in training alone."""

import pytest
import torch
from tests.training.tiny_training import logged, tiny_trainer
from torch.testing import assert_close

from storm_hf import StormAlignConfig
from storm_hf.errors import ConfigurationError


def fed(trainer, targets):
    return trainer._forcing(targets)["forced_latents"]


def test_noise_has_the_standard_deviation_that_was_asked_for(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, teacher_noise=0.3)
    trainer.model.train()
    targets = torch.zeros(64, 3, 32)
    assert_close(fed(trainer, targets).std(), torch.tensor(0.3), rtol=0.05, atol=0)


def test_targets_themselves_stay_as_they_are(tmp_path):
    """Only what is fed is disturbed: alignment is still measured against the true targets."""
    runs = [
        tiny_trainer("align", "qwen2_5_vl", tmp_path, max_steps=1, teacher_noise=noise, learning_rate=0.0)
        for noise in (0.0, 0.3)
    ]
    for trainer in runs:
        trainer.train()
    calm, noisy = runs
    assert logged(calm, "answer_loss") != logged(noisy, "answer_loss")
    batch = noisy.data_collator(noisy.train_dataset.select([0, 1]).to_list())
    targets = batch["target_trajectory"].clone()
    noisy.model.train()
    noisy.compute_loss(noisy.model, batch)
    assert torch.equal(batch["target_trajectory"], targets)


def test_evaluation_feeds_the_targets(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, teacher_noise=0.3)
    trainer.model.eval()
    targets = torch.randn(2, 3, 32)
    assert torch.equal(fed(trainer, targets), targets)


@pytest.mark.parametrize("setting", [{"teacher_noise": -0.1}, {"teacher_noise": 0.1, "forcing": "rollout"}])
def test_noise_that_means_nothing_is_refused(setting):
    with pytest.raises(ConfigurationError, match="teacher_noise"):
        StormAlignConfig("folder", **setting)
