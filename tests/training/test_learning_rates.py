"""Parts of a model with a learning rate of their own."""

import shutil

import pytest
import torch
from peft import get_peft_model
from tests.tiny import tiny_storm
from tests.training.tiny_training import STAGES, tiny_trainer

from storm_hf.errors import ConfigurationError
from storm_hf.training.learning_rates import vision_parameters
from storm_hf.training.peft import default_lora


def rates(trainer):
    """The learning rate of each trained parameter, by its name."""
    rate_of = {
        parameter: group["lr"] for group in trainer.create_optimizer().param_groups for parameter in group["params"]
    }
    return {
        name: rate_of[parameter] for name, parameter in trainer.model.named_parameters() if parameter.requires_grad
    }


@pytest.mark.parametrize("stage", STAGES)
def test_each_part_learns_at_its_own_rate(stage, kind, tmp_path):
    own = {"projector_learning_rate": 3e-3, "vision_learning_rate": 2e-3}
    trainer = tiny_trainer(stage, kind, tmp_path, learning_rate=1e-4, freeze_vision=False, **own)
    vision = {
        name
        for name, one in trainer.model.named_parameters()
        if any(one is part for part in vision_parameters(trainer.model))
    }
    assert vision
    for name, rate in rates(trainer).items():
        expected = 3e-3 if "latent_projector" in name else 2e-3 if name in vision else 1e-4
        assert rate == expected, name


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_projector_beside_an_adapter_has_its_own_rate(tmp_path):
    settings = {"learning_rate": 1e-4, "projector_learning_rate": 3e-3}
    model = tiny_storm("qwen2_5_vl")
    adapted = tiny_trainer(
        "align", "qwen2_5_vl", tmp_path, model=get_peft_model(model, default_lora(model)), **settings
    )
    found = rates(adapted)
    assert {rate for name, rate in found.items() if "lora" in name} == {1e-4}
    assert {rate for name, rate in found.items() if "latent_projector" in name} == {3e-3}


def test_without_rates_of_parts_the_groups_are_those_of_the_library(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path)
    assert len(trainer.create_optimizer().param_groups) == 2


def test_rates_of_parts_rise_and_fall_with_the_schedule(tmp_path):
    settings = {"learning_rate": 1e-4, "projector_learning_rate": 3e-3, "max_steps": 4}
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, **settings, lr_scheduler_type="linear")
    trainer.train()
    last = [group["lr"] for group in trainer.optimizer.param_groups]
    assert max(last) == pytest.approx(30 * min(last)) or max(last) == 0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


def test_rate_of_a_frozen_tower_is_refused(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, vision_learning_rate=1e-3)
    with pytest.raises(
        ConfigurationError, match=r"vision_learning_rate: 0\.001.*nothing to train.*freeze_vision: false"
    ):
        trainer.create_optimizer()


def test_run_with_rates_of_parts_resumes_as_if_it_had_not_stopped(tmp_path):
    settings = {"learning_rate": 1e-3, "projector_learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 1}
    whole = tiny_trainer("answer", "qwen2_5_vl", tmp_path / "whole", max_steps=3, **settings)
    whole.train()
    tiny_trainer("answer", "qwen2_5_vl", tmp_path / "parts", max_steps=3, **settings).train()
    for later in (2, 3):
        shutil.rmtree(tmp_path / "parts" / f"checkpoint-{later}")
    resumed = tiny_trainer("answer", "qwen2_5_vl", tmp_path / "parts", max_steps=3, **settings)
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
