"""Draws for the rows of a step: the same however the batch is cut into micro-batches and processes."""

from types import SimpleNamespace

from tests.training.tiny_training import tiny_trainer

from storm_hf.training.samplers import RowDraws


def draws_of(rank=0, num_processes=1, seed=0):
    return RowDraws(SimpleNamespace(seed=seed), SimpleNamespace(process_index=rank, num_processes=num_processes))


def draw(draws, num_rows, *purpose, step=0):
    return [generator.random() for generator in draws.generators(num_rows, step, *purpose)]


def test_two_processes_draw_what_one_draws():
    alone = draw(draws_of(), 8)
    of_ranks = []
    for rank in (0, 1):
        draws = draws_of(rank, num_processes=2)
        of_ranks.append([draw(draws, 2), draw(draws, 2)])
    together = [value for micro_batches in zip(*of_ranks, strict=True) for rows in micro_batches for value in rows]
    assert together == alone
    assert len(set(alone)) == 8, "no two rows draw alike"


def test_next_step_and_another_seed_draw_anew():
    first = draw(draws_of(), 4)
    second = draw(draws_of(), 4, step=1)
    other = draw(draws_of(seed=1), 4, step=1)
    assert len({*first, *second, *other}) == 12


def test_rows_are_numbered_anew_in_each_accumulated_batch(tmp_path):
    settings = {"teacher_noise": 0.1, "gradient_accumulation_steps": 2, "max_steps": 2}
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, **settings)
    trainer.train()
    draws = draws_of(seed=trainer.args.seed)
    draw(draws, 4, step=1)
    assert draw(trainer._row_draws, 1, step=1) == draw(draws, 1, step=1), "four rows came before in the second step"


def test_purposes_draw_apart_and_do_not_disturb_each_other():
    draws = draws_of()
    alone = [draw(draws, 2, 1), draw(draws, 2, 1)]
    draws.begin()
    first = draw(draws, 2, 1)
    other = draw(draws, 2)
    assert [first, draw(draws, 2, 1)] == alone
    assert not {*other} & {*first}
