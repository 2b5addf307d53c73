import pytest
import torch
from tests.invariants.test_cheaper_gradients import EXACT, INEXACT
from tests.tiny import tiny_inputs, tiny_storm
from tests.training.tiny_training import logged, tiny_trainer

from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.precision import gradient_error


NAMES = ("rollout_gradient_error", "rollout_gradient_cosine")


@pytest.fixture(scope="module")
def model():
    return tiny_storm("qwen2_5_vl").train()


@pytest.fixture(scope="module")
def batch():
    inputs = tiny_inputs("qwen2_5_vl", prompt_lengths=(5,), suffix=(112, 7, 8, 9))
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    return {**inputs, "labels": labels}


@pytest.mark.parametrize("gradient", EXACT.values(), ids=EXACT)
def test_exact_gradients_have_no_error(model, batch, gradient):
    error = gradient_error(model, batch, gradient)
    assert error.relative < 1e-4
    assert error.cosine == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("gradient", INEXACT.values(), ids=INEXACT)
def test_inexact_gradients_have_one(model, batch, gradient):
    error = gradient_error(model, batch, gradient)
    assert error.relative > 0.01
    assert error.cosine < 1


def test_error_falls_with_every_step_that_the_gradient_reaches(model, batch):
    errors = [gradient_error(model, batch, RolloutGradient(truncate_steps=steps)).relative for steps in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_it_leaves_no_trace(model, batch):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    gradient_error(model, batch, RolloutGradient(detach_prompt=True))
    assert torch.equal(torch.rand(1), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("setting", [{"detach_prompt": True}, {"truncate_steps": 1}, {"jacobi_sweeps": 1}])
def test_training_logs_the_error_once_at_its_start(setting, tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=3, **setting)
    trainer.train()
    assert [name in trainer.state.log_history[0] for name in NAMES] == [True, True]
    assert [len(logged(trainer, name)) for name in NAMES] == [1, 1]
    assert logged(trainer, "rollout_gradient_error")[0] > 0.001


def test_exact_training_logs_none(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path)
    trainer.train()
    assert not any(name in entry for entry in trainer.state.log_history for name in NAMES)


@pytest.mark.parametrize("setting", [{"truncate_steps": 9}, {"jacobi_sweeps": 9}])
def test_settings_that_change_nothing_train_the_same(setting, tmp_path):
    runs = [tiny_trainer("answer", "qwen2_5_vl", tmp_path, **given) for given in ({}, setting)]
    for trainer in runs:
        trainer.train()
    exact, found = runs
    assert logged(found, "loss") == pytest.approx(logged(exact, "loss"), rel=1e-5)
    assert logged(found, "grad_norm") == pytest.approx(logged(exact, "grad_norm"), rel=1e-4)


def test_measuring_the_error_does_not_change_the_run(tmp_path):
    """The first loss is that of the exact run: only the gradient is cut, and the data come in the same order."""
    runs = [tiny_trainer("answer", "qwen2_5_vl", tmp_path, **given) for given in ({}, {"detach_prompt": True})]
    for trainer in runs:
        trainer.train()
    assert logged(runs[1], "loss")[0] == pytest.approx(logged(runs[0], "loss")[0], rel=1e-6)
    assert logged(runs[1], "grad_norm")[0] != pytest.approx(logged(runs[0], "grad_norm")[0], rel=1e-3)
