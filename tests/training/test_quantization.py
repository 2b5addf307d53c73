"""QLoRA: only projections of the language model are quantized, and an adapter trains beside them."""

import sys

import numpy as np
import pytest
import torch
from datasets import Array3D, Features
from peft import PeftModel
from safetensors.torch import load_file
from tests.tiny import enlarge_weights, tiny_config, tiny_processor, tiny_qwen_config, tiny_storm
from tests.training.tiny_videos import write_thoughts
from transformers import AutoModelForImageTextToText, set_seed

from storm_hf import StormAlignConfig, StormAlignTrainer, StormAnswerConfig, StormAnswerTrainer
from storm_hf.errors import ConfigurationError, StormError
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm, outside_decoder, quantization
from storm_hf.training.peft import decoder_name, peft_config


pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 8}
OUTSIDE = {
    "qwen2_5_vl": {"visual"},
    "qwen3_vl": {"visual"},
    "qwen3_5": {"visual"},
    "llava_onevision": {"vision_tower", "multi_modal_projector"},
    "smolvlm": {"vision_model", "connector"},
    "internvl": {"vision_tower", "multi_modal_projector"},
}
LAYER = {4: "Linear4bit", 8: "Linear8bitLt"}


def test_everything_outside_the_language_model_is_named(kind, storm):
    expected = {f"model.backbone.model.{name}" for name in OUTSIDE[kind]}
    assert set(outside_decoder(storm)) == {"model.latent_projector", "model.backbone.lm_head", *expected}


@pytest.mark.scale
@pytest.mark.parametrize("is_plain", [True, False])
def test_skip_list_is_read_off_the_configuration_alone(kind, is_plain):
    args = StormModelConfig(model_name_or_path="any", use_peft=True, load_in_4bit=True, bnb_4bit_quant_type="fp4")
    found = quantization(args, tiny_config(kind) if is_plain else tiny_storm(kind).config)
    assert set(found.llm_int8_skip_modules) == set(outside_decoder(tiny_storm(kind)))
    assert (found.load_in_4bit, found.bnb_4bit_quant_type) == (True, "fp4")


@pytest.mark.scale
@pytest.mark.parametrize(("dtype", "compute"), [("auto", "bfloat16"), ("float32", "float32"), ("float16", "float16")])
def test_products_are_computed_in_the_precision_of_the_model(dtype, compute):
    args = StormModelConfig(model_name_or_path="any", use_peft=True, load_in_4bit=True, dtype=dtype)
    assert quantization(args, tiny_config("qwen2_5_vl")).bnb_4bit_compute_dtype == getattr(torch, compute)


def test_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    args = StormModelConfig(model_name_or_path="any", use_peft=True, load_in_4bit=True)
    with pytest.raises(StormError, match=r"\[scale\]"):
        quantization(args, tiny_config("qwen2_5_vl"))


def test_nothing_is_quantized_without_being_asked():
    assert quantization(StormModelConfig(model_name_or_path="any"), tiny_config("qwen2_5_vl")) is None


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_without_an_adapter_are_refused(bits):
    with pytest.raises(ConfigurationError, match="need `use_peft: true`"):
        StormModelConfig(model_name_or_path="any", **{f"load_in_{bits}bit": True})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A plain checkpoint whose widths are multiples of 64, the block of the 4-bit format."""
    folder, processor = tmp_path_factory.mktemp("wide"), tiny_processor()
    config = tiny_qwen_config(processor, **WIDE)
    config.text_config.rope_parameters["mrope_section"] = [1, 1, 2]
    config.vision_config.out_hidden_size = WIDE["hidden_size"]
    set_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    enlarge_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def storm_folder(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("storm")
    model, processor = load_storm(StormModelConfig(model_name_or_path=str(plain)), 3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load(folder, bits, **settings):
    args = StormModelConfig(
        model_name_or_path=str(folder), use_peft=True, lora_r=4, **{f"load_in_{bits}bit": True}, **settings
    )
    return *load_storm(args, 3), args


@pytest.mark.scale
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("start", ["plain", "storm_folder"])
def test_only_projections_of_the_language_model_are_quantized(bits, start, request):
    folder = request.getfixturevalue(start)
    model, _, _ = load(folder, bits)
    inside = decoder_name(model) + "."
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert (type(module).__name__ == LAYER[bits]) == name.startswith(inside), name
    whole, _ = load_storm(StormModelConfig(model_name_or_path=str(folder)), 3)
    weights = dict(model.named_parameters())
    for name, weight in whole.named_parameters():
        if not name.startswith((inside, "model.latent_projector.")):  # a plain checkpoint gets a new projector
            assert torch.equal(weights[name], weight), name
    assert all(weight.dtype == torch.float32 for weight in model.model.latent_projector.parameters())


@pytest.mark.scale
@pytest.mark.parametrize("stage", ["align", "answer"])
def test_adapter_trains_beside_quantized_weights(stage, plain, tmp_path):
    rows = load_rows(str(write_thoughts(tmp_path / "data", num_rows=4)))["train"]
    rows = rows.map(
        lambda row: {"wide": np.tile(row["thought_features"], 2)},
        features=Features({**rows.features, "wide": Array3D((None, 4, WIDE["hidden_size"]), "float16")}),
    )
    rows = rows.remove_columns("thought_features").rename_column("wide", "thought_features")
    model, processor, args = load(plain, 4)
    config_class, trainer_class, extra = {
        "align": (StormAlignConfig, StormAlignTrainer, {"whitening_rank": 2}),
        "answer": (StormAnswerConfig, StormAnswerTrainer, {}),
    }[stage]
    common = {"max_steps": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 2, "save_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    trainer = trainer_class(
        model=model,
        args=config_class(str(tmp_path), **common, **quiet, **extra),
        train_dataset=rows,
        processing_class=processor,
        peft_config=peft_config(args, model),
    )
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.evaluate(rows)  # some processors have 4-bit weights repacked in evaluation
    trainer.train()
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, before[name]) != weight.requires_grad, name
        assert not weight.requires_grad or weight.dtype == torch.float32, name

    trainer.save_model()
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in name or "latent_projector" in name for name in saved), (
        "no embeddings, though the base is plain"
    )
    again, _ = load_storm(StormModelConfig(model_name_or_path=str(tmp_path), use_peft=True, load_in_4bit=True))
    trained = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert isinstance(again, PeftModel)
    for name, weight in again.named_parameters():
        assert weight.requires_grad == (name in trained), name
        assert not weight.requires_grad or torch.equal(weight, trained[name]), name
