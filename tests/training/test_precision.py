"""Trained weights have float32 masters, and a loss that is not finite ends the run."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from tests.tiny import tiny_storm
from tests.training.tiny_training import STAGES, TinyCollator, logged, tiny_trainer
from tests.training.tiny_videos import load_tiny, write_thoughts
from transformers import AutoModelForImageTextToText, AutoProcessor

from storm_hf import StormForConditionalGeneration, storm_processor
from storm_hf.errors import BackboneError, ConfigurationError, StageError
from storm_hf.inputs.features import cache_video_features
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm
from storm_hf.training.precision import train_whole_in_float32


def moved_share(model, trainer):
    """Share of the trained numbers that ten steps of the stage's own rate move."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    trainer.train()
    after = dict(model.named_parameters())
    moved = sum(int((before[name] != after[name]).sum()) for name in before)
    return moved / sum(weight.numel() for weight in before.values())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_weights_in_16_bits_move_as_those_in_32(stage, dtype, autocast, tmp_path):
    shares = {}
    for name, model in {"half": tiny_storm("qwen2_5_vl", 3).to(dtype), "whole": tiny_storm("qwen2_5_vl", 3)}.items():
        rate = {"align": 1e-5, "answer": 1e-6}[stage]
        settings = {"max_steps": 10, "learning_rate": rate, "bf16": autocast, "num_rows": 4}
        shares[name] = moved_share(model, tiny_trainer(stage, "qwen2_5_vl", tmp_path / name, model=model, **settings))
    assert shares["half"] == pytest.approx(shares["whole"], abs=0.02)
    assert shares["whole"] > 0.5


def test_checkpoint_in_16_bits_trains_in_python_as_in_the_scripts(qwen_checkpoint, tmp_path):
    half = tmp_path / "half"
    AutoModelForImageTextToText.from_pretrained(qwen_checkpoint, dtype=torch.bfloat16).save_pretrained(half)
    AutoProcessor.from_pretrained(qwen_checkpoint).save_pretrained(half)
    processor = storm_processor(half, 3)
    models = {
        "python": StormForConditionalGeneration.from_backbone(half, 3, processor=processor),
        "scripts": load_storm(StormModelConfig(model_name_or_path=str(half)), 3)[0],
    }
    assert models["python"].dtype == torch.bfloat16
    for name, model in models.items():
        tiny_trainer("answer", "qwen2_5_vl", tmp_path / name, model=model)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}, name


@pytest.mark.parametrize(("mixed", "is_refused"), [(True, False), (False, True)])
def test_deepspeed_holds_masters_of_its_own_in_mixed_precision(mixed, is_refused):
    model = tiny_storm("qwen2_5_vl").to(torch.bfloat16)
    args = SimpleNamespace(deepspeed_plugin=SimpleNamespace(), bf16=mixed, fp16=False)
    if is_refused:
        with pytest.raises(ConfigurationError, match="bfloat16.*`bf16: true`"):
            train_whole_in_float32(model, args)
    else:
        train_whole_in_float32(model, args)
    assert model.dtype == torch.bfloat16


def test_frozen_model_in_16_bits_stays_so():
    model = tiny_storm("qwen2_5_vl").to(torch.bfloat16).requires_grad_(False)
    train_whole_in_float32(model, SimpleNamespace(deepspeed_plugin=None, bf16=False, fp16=False))
    assert model.dtype == torch.bfloat16


# --- a loss that is not finite ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BrokenTarget(TinyCollator):
    """The target of row 2 is not finite."""

    def target(self, number):
        return super().target(number) * (float("nan") if number == 2 else 1)


def test_target_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    settings = {
        "per_device_train_batch_size": 1,
        "num_rows": 4,
        "max_steps": 4,
        "train_sampling_strategy": "sequential",
    }
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, **settings)
    trainer.data_collator = BrokenTarget("qwen2_5_vl", with_targets=True)
    with pytest.raises(StageError, match="got nan in step 3: `target_trajectory` of the batch"):
        trainer.train()
    assert len(logged(trainer, "loss")) == 2
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


@pytest.mark.parametrize("stage", STAGES)
def test_weight_that_is_not_finite_stops_the_run_and_is_named(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path)
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight[5] = float("inf")
    with pytest.raises(StageError, match=r"in step 1: the weight `backbone.lm_head.weight`|`model.*lm_head"):
        trainer.train()


@torch.no_grad()
def test_features_beyond_float16_are_not_cached(qwen_checkpoint, tmp_path):
    model, processor = load_tiny(qwen_checkpoint, 3)
    for weight in model.backbone.model.visual.merger.parameters():
        weight.mul_(3e3)
    rows = load_rows(str(write_thoughts(tmp_path, 2)))["train"]
    with pytest.raises(BackboneError, match="finite in float16"):
        cache_video_features(rows, model, processor)
