"""Inputs of the latent slots are drawn for each row, the same however a batch is cut into micro-batches and processes."""

import pytest
import torch
from tests.training.tiny_training import NUM_LATENTS, logged, tiny_trainer
from torch.testing import assert_close


DRAWN = [{"forcing": "scheduled"}, {"teacher_noise": 0.5}]


@pytest.mark.parametrize("forcing", DRAWN, ids=["scheduled", "noise"])
def test_accumulated_batches_are_fed_as_one_batch(forcing, tmp_path):
    losses = {}
    for size in (4, 2, 1):
        trainer = tiny_trainer(
            "align",
            "qwen2_5_vl",
            tmp_path / str(size),
            num_rows=12,
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            **forcing,
        )
        trainer.train()
        losses[size] = logged(trainer, "loss")
    assert_close(losses[2], losses[4], rtol=1e-5, atol=1e-5)
    assert_close(losses[1], losses[4], rtol=1e-5, atol=1e-5)


def test_rows_of_a_batch_are_fed_different_slots(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, forcing="scheduled", max_steps=2)
    trainer.state.global_step, trainer.state.max_steps = 1, 2  # half of the slots are the model's own
    trainer.model.train()
    mix = trainer._forcing(torch.zeros(16, NUM_LATENTS, 1))["latent_intervention"]
    is_own = torch.cat([mix(step, torch.ones(16, 1)) for step in range(NUM_LATENTS)], dim=1)
    assert len({tuple(row) for row in is_own.tolist()}) > 4
    assert 0.2 < is_own.mean() < 0.8
