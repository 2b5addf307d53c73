"""LoRA by default: every projection of the language model, the latent projector whole, nothing else."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from tests.tiny import tiny_inputs, tiny_storm

from storm_hf.training.adapter import decoder_name, default_lora, exact_weights, peft_config, train_in_float32
from storm_hf.training.loading import StormModelConfig


# `peft/peft_model.py` of PEFT 0.21.2 reads a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LANGUAGE_MODEL = {"smolvlm": "model.backbone.model.text_model"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
LINEAR_ATTENTION = {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"}


def language_model_of(kind):
    return LANGUAGE_MODEL.get(kind, "model.backbone.model.language_model")


def adapted_layers(model):
    return {name.removeprefix("base_model.model.") for name, x in model.named_modules() if isinstance(x, LoraLayer)}


def arguments(**settings):
    return StormModelConfig(**{"model_name_or_path": "any", "use_peft": True, **settings})


def test_language_model_is_found_whatever_the_backbone_calls_it(kind, storm):
    assert decoder_name(storm) == language_model_of(kind)


def test_default_adapter_is_on_every_projection_of_the_language_model_and_nowhere_else(kind):
    model = tiny_storm(kind)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    names = ATTENTION | MLP | (LINEAR_ATTENTION if kind == "qwen3_5" else set())
    layers = adapted_layers(get_peft_model(model, default_lora(model)))
    assert layers == {name for name in linear if name.startswith(f"{language_model_of(kind)}.layers.")}
    assert {name.rpartition(".")[2] for name in layers} == names


def test_projector_is_trained_whole_and_everything_else_is_frozen(kind):
    model = tiny_storm(kind)
    adapted = get_peft_model(model, default_lora(model))
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    whole = {name for name in trained if "lora_" not in name}
    assert whole == {
        f"base_model.model.model.latent_projector.modules_to_save.default.layers.{name}"
        for name in ("0.weight", "0.bias", "1.weight", "1.bias")
    }
    assert all(language_model_of(kind) in name for name in trained - whole)


def test_identity_projector_has_nothing_to_save():
    model = tiny_storm("qwen2_5_vl", latent_projector="identity")
    assert default_lora(model).modules_to_save is None
    adapted = get_peft_model(model, default_lora(model))
    assert all("lora_" in name for name, weight in adapted.named_parameters() if weight.requires_grad)


def test_arguments_of_the_default_are_those_of_lora(storm):
    config = default_lora(storm, r=4, alpha=9, dropout=0.5)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.task_type) == (4, 9, 0.5, "CAUSAL_LM")


def test_what_is_asked_for_is_kept(storm):
    args = arguments(
        lora_r=3,
        lora_alpha=5,
        lora_dropout=0.2,
        use_dora=True,
        use_rslora=True,
        lora_target_modules=["q_proj", "v_proj"],
        lora_modules_to_save=["lm_head"],
        model_revision="v2",
    )
    config = peft_config(args, storm)
    assert isinstance(config, LoraConfig)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.2)
    assert (config.use_dora, config.use_rslora, config.revision) == (True, True, "v2")
    assert config.target_modules == {"q_proj", "v_proj"}
    assert set(config.modules_to_save) == {"lm_head", "latent_projector"}
    assert args.lora_modules_to_save == ["lm_head"], "the arguments themselves stay as they are"


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["all-linear"]])
def test_names_that_also_stand_in_a_vision_tower_mean_the_language_model(modules):
    model = tiny_storm("llava_onevision")
    assert any(name.endswith("q_proj") and "vision_tower" in name for name, _ in model.named_modules())
    adapted = get_peft_model(model, peft_config(arguments(lora_target_modules=modules), model))
    layers = adapted_layers(adapted)
    assert layers
    assert all(name.startswith(language_model_of("llava_onevision")) for name in layers)


def test_no_adapter_without_being_asked_and_none_on_an_adapter(storm):
    assert peft_config(arguments(use_peft=False), storm) is None
    model = tiny_storm("qwen2_5_vl")
    assert peft_config(arguments(), get_peft_model(model, default_lora(model))) is None


def test_adapter_on_a_model_of_low_precision_is_trained_in_float32():
    model = tiny_storm("qwen2_5_vl").to(torch.bfloat16)
    exact = {name: weight.float() + 1e-4 for name, weight in exact_weights(model).items()}
    adapted = get_peft_model(model, default_lora(model))
    train_in_float32(adapted, exact)
    for name, weight in adapted.named_parameters():
        assert (weight.dtype == torch.float32) == weight.requires_grad, name
    projector = adapted.get_base_model().model.latent_projector
    assert torch.equal(projector.layers[1].weight, exact["model.latent_projector.layers.1.weight"])


def test_float32_projector_thinks_among_states_of_low_precision_without_autocast():
    model = tiny_storm("qwen2_5_vl").to(torch.bfloat16)
    adapted = get_peft_model(model, default_lora(model)).eval()
    inputs = tiny_inputs("qwen2_5_vl")
    before = adapted(**inputs)
    train_in_float32(adapted, {})
    output = adapted(**inputs)
    assert output.latents.dtype == torch.bfloat16
    torch.testing.assert_close(output.latents, before.latents, rtol=0.05, atol=0.05)
    assert adapted.generate(**inputs, max_new_tokens=2).shape[1] > inputs["input_ids"].shape[1]


def test_small_steps_move_float32_weights_and_not_those_of_bfloat16():
    """Why: a step of Stage II is below half of the last digit of a weight in bfloat16."""
    for dtype, moves in ((torch.float32, True), (torch.bfloat16, False)):
        weight = torch.nn.Parameter(torch.full((8,), 4096**-0.5, dtype=dtype))
        before = weight.detach().clone()
        optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        for _ in range(5):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert torch.equal(weight, before) != moves
