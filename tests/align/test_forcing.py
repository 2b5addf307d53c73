"""What latent slots are fed is drawn for each row, the same however a batch is cut into micro-batches and processes."""

from types import SimpleNamespace

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


def begin_batch(trainer, rank=0, num_processes=1):
    trainer.accelerator = SimpleNamespace(process_index=rank, num_processes=num_processes)
    trainer._num_rows_numbered = 0


def draw(trainer, num_rows):
    return [generator.random() for generator in trainer._generators(num_rows)]


def test_two_processes_draw_what_one_draws(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path)
    begin_batch(trainer)
    alone = draw(trainer, 8)
    of_ranks = []
    for rank in (0, 1):
        begin_batch(trainer, rank, num_processes=2)
        of_ranks.append([draw(trainer, 2), draw(trainer, 2)])
    together = [value for micro_batches in zip(*of_ranks, strict=True) for rows in micro_batches for value in rows]
    assert together == alone
    assert len(set(alone)) == 8, "no two rows are fed alike"


def test_next_step_and_another_seed_draw_anew(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path)
    begin_batch(trainer)
    first = draw(trainer, 4)
    trainer.state.global_step = 1
    begin_batch(trainer)
    second = draw(trainer, 4)
    trainer.args.seed += 1
    begin_batch(trainer)
    other = draw(trainer, 4)
    assert len({*first, *second, *other}) == 12


def test_rows_of_a_batch_are_fed_different_slots(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, forcing="scheduled", max_steps=2)
    trainer.state.global_step, trainer.state.max_steps = 1, 2  # half of the slots are the model's own
    trainer.model.train()
    mix = trainer._forcing(torch.zeros(16, NUM_LATENTS, 1))["latent_intervention"]
    is_own = torch.cat([mix(step, torch.ones(16, 1)) for step in range(NUM_LATENTS)], dim=1)
    assert len({tuple(row) for row in is_own.tolist()}) > 4
    assert 0.2 < is_own.mean() < 0.8


def test_rows_are_numbered_anew_in_each_accumulated_batch(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, teacher_noise=0.1, gradient_accumulation_steps=2)
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer._num_rows_numbered == 4
