"""Stage II with a halting head: its loss in closed form, and runs that are what they are however they are cut."""

import math

import pytest
import torch
from tests.backbones import tiny_backbone_config
from tests.tiny import KINDS, tiny_storm
from tests.training.tiny_training import logged, tiny_trainer
from torch.testing import assert_close

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.answer.objective import halting_loss, halting_prior
from storm_hf.errors import ConfigurationError


def test_loss_is_the_expectation_over_the_lengths():
    halting = torch.tensor([[0.25, 0.5, 0.1], [0.5, 0.5, 0.9]]).logit()
    found = halting_loss(torch.tensor([[4.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), halting, halting_prior("uniform", 3, 3.0))
    assert_close(found.answer, torch.tensor([0.25 * 4 + 0.375 * 2 + 0.375 * 1, 1.0]))
    assert_close(found.num_latents, torch.tensor([0.25 + 0.75 + 1.125, 0.5 + 0.5 + 0.75]))
    entropy = -(0.25 * math.log(0.25) + 2 * 0.375 * math.log(0.375))
    assert_close(found.divergence[0], torch.tensor(math.log(3) - entropy))


def test_divergence_is_nothing_where_the_head_has_the_prior():
    prior = halting_prior("geometric", 4, 2.0)  # going on with one half at each step
    found = halting_loss(torch.zeros(1, 4), torch.tensor([[8 / 15, 4 / 7, 2 / 3, 0.5]]).logit(), prior)
    assert_close(prior.exp(), torch.tensor([8.0, 4.0, 2.0, 1.0]) / 15)
    assert_close(found.divergence, torch.zeros(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mean_steps", [1.0, 3.0, 1e6])
def test_priors_add_up_to_one(mean_steps):
    for kind in ("geometric", "uniform"):
        assert_close(halting_prior(kind, 5, mean_steps).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_gradient_is_finite_where_the_head_is_sure(logit):
    halting = torch.full((1, 4), logit, requires_grad=True)
    found = halting_loss(torch.ones(1, 4), halting, halting_prior("geometric", 4, 3.0))
    (found.answer + found.divergence).sum().backward()
    assert torch.isfinite(halting.grad).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_checkpointing", [False, True], ids=["", "checkpointed"])
def test_two_steps_change_every_trainable_parameter_and_no_frozen_one(kind, is_checkpointing, tmp_path):
    trainer = tiny_trainer("answer", kind, tmp_path, halting=True, gradient_checkpointing=is_checkpointing)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    parameters = dict(trainer.model.named_parameters())
    changed = {name for name, parameter in parameters.items() if not torch.equal(parameter, before[name])}
    assert changed == {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert {"model.halting_head.weight", "model.halting_head.bias"} <= changed


def test_layer_checkpointing_and_the_cut_of_the_batch_change_no_number(tmp_path):
    losses = []
    for size, is_checkpointing in ((4, False), (4, True), (1, False)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "max_steps": 3}
        trainer = tiny_trainer(
            "answer",
            "qwen3_5",
            tmp_path / f"{size}-{is_checkpointing}",
            num_rows=12,
            halting=True,
            halting_weight=0.5,
            gradient_checkpointing=is_checkpointing,
            **settings,
        )
        trainer.train()
        losses.append((logged(trainer, "loss"), logged(trainer, "grad_norm")))
    assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    assert_close(losses[2], losses[0], rtol=1e-4, atol=1e-5)


def test_balance_of_experts_is_part_of_the_loss(tmp_path):
    losses = {}
    for coefficient in (0.0, 0.5):
        model = tiny_storm("qwen3_vl", num_latents=3, vlm_config=tiny_backbone_config("qwen3_vl_moe"))
        settings = {"router_aux_loss_coef": coefficient, "max_steps": 1, "halting": True}
        trainer = tiny_trainer("answer", "qwen3_vl", tmp_path / str(coefficient), model=model, **settings)
        trainer.train()
        losses[coefficient] = logged(trainer, "loss")[0]
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * logged(trainer, "aux_loss")[0], rel=1e-4)


def test_resumed_run_is_the_uninterrupted_one(tmp_path):
    settings = {"halting": True, "save_strategy": "steps", "save_steps": 2}
    whole = tiny_trainer("answer", "qwen2_5_vl", tmp_path / "whole", max_steps=4, halting=True)
    whole.train()
    tiny_trainer("answer", "qwen2_5_vl", tmp_path / "cut", max_steps=2, **settings).train()
    resumed = tiny_trainer("answer", "qwen2_5_vl", tmp_path / "cut", max_steps=4, **settings)
    resumed.train(resume_from_checkpoint=True)
    for name in ("loss", "halting_divergence", "num_latents_used"):
        assert logged(resumed, name) == logged(whole, name)
    assert torch.equal(resumed.model.model.halting_head.weight, whole.model.model.halting_head.weight)


def test_strong_short_prior_shortens_thoughts(tmp_path):
    settings = {"max_steps": 12, "learning_rate": 0.05, "halting_weight": 10.0, "halting_prior_steps": 1.2}
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, halting=True, **settings)
    trainer.train()
    lengths = logged(trainer, "num_latents_used")
    assert lengths[0] > 2.6
    assert lengths[-1] < 2.0


@pytest.mark.parametrize("stage", ["align", "answer"])
def test_head_stays_as_it_is_where_it_is_not_trained(stage, tmp_path):
    model = tiny_storm("qwen2_5_vl", num_latents=3, halting_head=True)
    before = model.model.halting_head.bias.clone()
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, model=model)
    trainer.train()
    assert torch.equal(trainer.model.model.halting_head.bias, before)
    assert not trainer.model.model.halting_head.bias.requires_grad


def test_head_is_trained_beside_a_thought_adapter(tmp_path):
    model = tiny_storm("qwen2_5_vl", num_latents=3)
    model.add_thought_adapter(r=2)
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model, halting=True)
    before = trainer.model.model.halting_head.bias.clone()
    trainer.train()
    assert not torch.equal(trainer.model.model.halting_head.bias, before)


def test_evaluation_is_that_of_a_full_thought(tmp_path):
    losses = []
    for halting in (False, True):
        trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path / str(halting), halting=halting)
        losses.append(trainer.evaluate(trainer.train_dataset)["eval_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_latents": 0},
        {"min_num_latents": 1},
        {"bottleneck_share": 0.5},
        {"jacobi_sweeps": 2},
        {"label_smoothing_factor": 0.1},
        {"loss_type": "dft"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_contradict_it_are_refused(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="`halting` answers after each"):
        StormAnswerConfig(str(tmp_path), use_cpu=True, halting=True, **settings)


def test_prior_shorter_than_a_step_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`halting_prior_steps` must be 1 or more, got 0.5"):
        StormAnswerConfig(str(tmp_path), use_cpu=True, halting_prior_steps=0.5)


def test_adapter_of_peft_is_refused(tmp_path):
    from peft import LoraConfig

    with pytest.raises(ConfigurationError, match="adapter of PEFT"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, halting=True, peft_config=LoraConfig(r=2))


def test_loss_of_ones_own_is_refused(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, halting=True)
    trainer.compute_loss_func = lambda outputs, labels, num_items_in_batch: outputs.logits.sum()
    with pytest.raises(ConfigurationError, match="compute_loss_func"):
        trainer.train()


def test_optimizer_that_was_made_before_the_head_is_refused(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, halting=True)
    trainer.optimizer = torch.optim.SGD(trainer.model.model.backbone.parameters(), lr=0.1)
    with pytest.raises(ConfigurationError, match=r"that holds the halting head.*add_halting_head"):
        trainer.train()


def test_optimizer_of_ones_own_trains_the_head_that_it_holds(tmp_path):
    model = tiny_storm("qwen2_5_vl")
    model.add_halting_head()
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model, halting=True)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [weight.clone() for weight in model.model.halting_head.parameters()]
    trainer.train()
    assert all(not torch.equal(*pair) for pair in zip(before, model.model.halting_head.parameters(), strict=True))
