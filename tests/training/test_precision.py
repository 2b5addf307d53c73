"""Trained weights have float32 masters, and a loss that is not finite ends the run."""

from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from tests.tiny import tiny_storm
from tests.training.tiny_training import STAGES, TinyCollator, logged, tiny_trainer
from tests.training.tiny_videos import load_tiny, write_thoughts
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForImageTextToText, AutoProcessor

from storm_hf import StormForConditionalGeneration, storm_processor
from storm_hf.errors import BackboneError, ConfigurationError, StageError
from storm_hf.inputs.features import cache_video_features
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm
from storm_hf.training.peft import default_lora
from storm_hf.training.precision import frozen_weights_cast, train_whole_in_float32


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


# --- casts of weights, once a step -----------------------------------------------------------------------------------


_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Casts(TorchDispatchMode):
    """Counts casts of matrices to bfloat16, by their shape."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in _COPIES and (args[-1].dtype, result.dtype) == (torch.float32, torch.bfloat16):
            self.counts[tuple(result.shape)] += 1
        return result


KEYS = (16, 32)  # shape of the projections to keys and values, and of nothing else: towers and adapters have others
NUM_STEPS = 2


def trained(stage, kind, adapter, folder, **settings):
    """A trainer under autocast, of a whole model or of an adapter, after its steps; and how often a step cast a weight."""
    model = tiny_storm(kind, num_latents=3)
    num_weights = sum(tuple(weight.shape) == KEYS for weight in model.get_decoder().parameters())
    if adapter == "thought adapter":
        model.add_thought_adapter(r=2)
    lora = default_lora(model, r=2, dropout=0.0) if adapter == "LoRA" else None
    trainer = tiny_trainer(stage, kind, folder, model=model, peft_config=lora, bf16=True, **settings)
    with Casts() as casts:
        trainer.train()
    return trainer, casts.counts[KEYS] / num_weights / NUM_STEPS


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("adapter", ["LoRA", "thought adapter"])
def test_casting_frozen_weights_once_changes_no_bit(stage, adapter, kind, tmp_path, monkeypatch):
    held, num_casts = trained(stage, kind, adapter, tmp_path / "held")
    monkeypatch.setattr("storm_hf.training.trainer.frozen_weights_cast", lambda *_: nullcontext())
    again, num_casts_again = trained(stage, kind, adapter, tmp_path / "again")
    assert logged(held, "loss") == logged(again, "loss")
    assert logged(held, "grad_norm") == logged(again, "grad_norm")
    weights = dict(again.model.named_parameters())
    for name, weight in held.model.named_parameters():
        assert weight.dtype == weights[name].dtype == torch.float32, name
        assert torch.equal(weight, weights[name]), name
    num_passes = {"LoRA": {"align": 1, "answer": 4}, "thought adapter": {"align": 2, "answer": 5}}  # K = 3
    assert (num_casts, num_casts_again) == (1, num_passes[adapter][stage])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_weights_that_are_trained_are_cast_once_a_step(checkpointing, tmp_path):
    _, num_casts = trained("answer", "qwen2_5_vl", "whole", tmp_path, gradient_checkpointing=checkpointing)
    assert num_casts == 1


def test_frozen_weights_are_whole_again_after_a_step_that_failed():
    model = tiny_storm("qwen2_5_vl").requires_grad_(False)
    layer, embedding = model.get_decoder().layers[0], model.get_input_embeddings()
    before = layer.mlp.up_proj.weight.clone()
    with suppress(ZeroDivisionError), frozen_weights_cast(model, torch.bfloat16):
        assert layer.mlp.up_proj.weight.dtype == torch.bfloat16
        assert {layer.input_layernorm.weight.dtype, embedding.weight.dtype, model.dtype} == {torch.float32}
        raise ZeroDivisionError
    assert torch.equal(layer.mlp.up_proj.weight, before)


def test_casts_of_frozen_weights_lie_in_the_memory_of_the_step_before_and_follow_the_weights():
    model, memory = tiny_storm("qwen2_5_vl").requires_grad_(False), {}
    weight = model.get_decoder().layers[0].mlp.up_proj.weight
    places = []
    for _ in range(2):
        weight.data.mul_(2)  # as an adapter that is merged writes
        with frozen_weights_cast(model, torch.bfloat16, memory):
            places.append(weight.data_ptr())
            cast = weight.clone()
        assert torch.equal(cast, weight.bfloat16())
    assert places[0] == places[1] != weight.data_ptr()


def test_deepspeed_and_compiled_models_are_left_alone(tmp_path, monkeypatch):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, bf16=True)
    layer = trainer.model.get_decoder().layers[0].mlp.up_proj
    with trainer._weights_read_once():
        assert "forward" in vars(layer)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    with trainer._weights_read_once():
        assert "forward" not in vars(layer)


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
