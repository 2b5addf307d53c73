"""Draws for the rows of a step: the same however the batch is cut into micro-batches and processes."""

from types import SimpleNamespace

from tests.training.tiny_training import tiny_trainer


def begin_batch(trainer, rank=0, num_processes=1):
    trainer.accelerator = SimpleNamespace(process_index=rank, num_processes=num_processes)
    trainer._num_rows_numbered.clear()


def draw(trainer, num_rows, *purpose):
    return [generator.random() for generator in trainer._row_generators(num_rows, *purpose)]


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
    assert len(set(alone)) == 8, "no two rows draw alike"


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


def test_rows_are_numbered_anew_in_each_accumulated_batch(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, teacher_noise=0.1, gradient_accumulation_steps=2)
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer._num_rows_numbered.total() == 4


def test_purposes_draw_apart_and_do_not_disturb_each_other(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path)
    begin_batch(trainer)
    alone = [draw(trainer, 2, 1), draw(trainer, 2, 1)]
    begin_batch(trainer)
    first = draw(trainer, 2, 1)
    other = draw(trainer, 2)
    assert [first, draw(trainer, 2, 1)] == alone
    assert not {*other} & {*first}
