"""LoRA by default: every projection of the language model, the latent projector whole, nothing else."""

import copy
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_inputs, tiny_storm, tiny_tokenizer
from tests.training.tiny_training import QUIET, TinyCollator, tiny_rows, tiny_trainer
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts
from transformers import AutoModelForImageTextToText, AutoProcessor

from storm_hf import StormAnswerConfig, StormAnswerTrainer, StormForConditionalGeneration
from storm_hf.errors import CheckpointError, ConfigurationError
from storm_hf.evaluation import load_checkpoint
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm
from storm_hf.training.peft import (
    check_adapter_trains,
    complete_adapter,
    decoder_name,
    default_lora,
    exact_weights,
    peft_config,
    train_in_float32,
)


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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_vision_tower_that_is_trained_whole_beside_an_adapter_sees_as_before(precision):
    model = tiny_storm("qwen2_5_vl").to(precision)
    config = complete_adapter(LoraConfig(r=2, modules_to_save=["visual"]), model, freeze_vision=False)
    adapted = get_peft_model(model, config).eval()
    inputs = tiny_inputs("qwen2_5_vl")
    before = adapted(**inputs)
    train_in_float32(adapted, {})
    torch.testing.assert_close(adapted(**inputs).logits, before.logits, rtol=0.05, atol=0.05)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert any(".visual.modules_to_save.default." in name for name in trained)


def test_small_steps_move_float32_weights_and_not_those_of_bfloat16():
    """A step of Stage II is below half of the last digit of a weight in bfloat16."""
    for dtype, moves in ((torch.float32, True), (torch.bfloat16, False)):
        weight = torch.nn.Parameter(torch.full((8,), 4096**-0.5, dtype=dtype))
        before = weight.detach().clone()
        optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        for _ in range(5):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert torch.equal(weight, before) != moves


# --- a configuration of one's own ------------------------------------------------------------------------------------


OWN = {
    "names": LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    "all linear": LoraConfig(r=2, target_modules="all-linear"),
    "pattern": LoraConfig(r=2, target_modules=r".*\.(q_proj|v_proj|qkv|fc1|fc2|gate_proj)"),
    "default targets": LoraConfig(r=2),
    "names left out": LoraConfig(r=2, target_modules="all-linear", exclude_modules=["o_proj"]),
    "pattern left out": LoraConfig(r=2, target_modules="all-linear", exclude_modules=r".*o_proj"),
    "embeddings": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_own_configuration_takes_the_projector_along_and_leaves_the_tower_alone(own, kind):
    model = tiny_storm(kind)
    before = copy.deepcopy(own)
    adapted = get_peft_model(model, complete_adapter(own, model))
    trained = {name.removeprefix("base_model.model.") for name, x in adapted.named_parameters() if x.requires_grad}
    assert any(name.startswith("model.latent_projector.modules_to_save") for name in trained)
    others = {name for name in trained if "latent_projector" not in name}
    assert others
    assert all(name.startswith(f"{language_model_of(kind)}.") for name in others)
    assert not any("latent_projector" in name and "lora" in name for name in trained)
    assert own == before, "the user's configuration stays as it is"
    check_adapter_trains(adapted, freeze_vision=True)


@pytest.mark.parametrize("name", ["names left out", "pattern left out"])
def test_what_is_left_out_stays_left_out(name):
    model = tiny_storm("qwen2_5_vl")
    assert not any(
        layer.endswith("o_proj") for layer in adapted_layers(get_peft_model(model, complete_adapter(OWN[name], model)))
    )


def test_tower_is_adapted_where_it_is_not_frozen():
    model = tiny_storm("qwen2_5_vl")
    adapted = get_peft_model(model, complete_adapter(OWN["all linear"], model, freeze_vision=False))
    assert any("visual" in layer for layer in adapted_layers(adapted))
    assert not any("latent_projector" in layer for layer in adapted_layers(adapted))
    with pytest.raises(ConfigurationError, match=r"the adapter trains .*visual.*`freeze_vision: false`"):
        check_adapter_trains(adapted, freeze_vision=True)


def test_adapter_that_leaves_the_projector_out_is_refused_before_training(tmp_path):
    model = get_peft_model(tiny_storm("qwen2_5_vl", num_latents=3), OWN["names"])
    with pytest.raises(ConfigurationError, match="`latent_projector`, which would otherwise not be saved"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model)


def test_learned_prompt_is_refused():
    model = tiny_storm("qwen2_5_vl")
    with pytest.raises(ConfigurationError, match="got PromptTuningConfig. Use a LoraConfig"):
        complete_adapter(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), model)


# --- from training to every place that opens an adapter ----------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"), 4)))["train"]


TRAINED = {
    "lora": LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    "dora": LoraConfig(r=2, target_modules=["q_proj", "v_proj"], use_dora=True),
    "embeddings": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
}


@pytest.fixture(scope="module")
def trained(request, qwen_checkpoint, rows, tmp_path_factory):
    """A trained adapter's folder, and the logits and latents of a prompt before it was saved."""
    name, base = request.param
    folder = tmp_path_factory.mktemp("adapter")
    model, processor = load_tiny(qwen_checkpoint, 3)
    if base == "storm":
        model.save_pretrained(folder / "base")
        processor.save_pretrained(folder / "base")
        model = StormForConditionalGeneration.from_pretrained(folder / "base")
    trainer = StormAnswerTrainer(
        model=model,
        args=StormAnswerConfig(str(folder / "adapter"), **{**QUIET, "max_steps": 2, "learning_rate": 1e-2}),
        train_dataset=rows,
        processing_class=processor,
        peft_config=TRAINED[name],
    )
    trainer.train()
    trainer.save_model()
    return folder / "adapter", answer_of(trainer.model, processor, rows)


@torch.no_grad()
def answer_of(model, processor, rows):
    output = model.eval()(**prompt_encoder(model, processor)(rows.to_list()[:1]))
    return output.logits, output.latents


def by_load_checkpoint(folder):
    return load_checkpoint(str(folder))


def by_load_storm(folder):
    return load_storm(StormModelConfig(model_name_or_path=str(folder)))


def by_load_storm_going_on(folder):
    return load_storm(StormModelConfig(model_name_or_path=str(folder), use_peft=True))


def by_auto_class(folder):
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def by_peft(folder):
    base = StormForConditionalGeneration.from_pretrained(folder.parent / "base")
    return PeftModel.from_pretrained(base, folder), AutoProcessor.from_pretrained(folder)


OWN_DOORS = (by_load_checkpoint, by_load_storm, by_load_storm_going_on)
# The Auto classes and PEFT know nothing of what STORM made of a plain base.
DOORS = {"plain": OWN_DOORS, "storm": (*OWN_DOORS, by_auto_class, by_peft)}
OPENED = [((name, base), door) for name in TRAINED for base in DOORS for door in DOORS[base]]


@pytest.mark.parametrize(("trained", "door"), OPENED, indirect=["trained"])
def test_adapter_opens_as_trained(trained, door, rows):
    folder, expected = trained
    for part, wanted in zip(answer_of(*door(folder), rows), expected, strict=True):
        torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained", [("dora", "plain"), ("dora", "storm")], indirect=True)
def test_adapter_with_dora_that_peft_saved_opens_too(trained, rows):
    folder, expected = trained
    weights = load_file(folder / "adapter_model.safetensors")
    assert any("magnitude" in name for name in weights)
    copy_of = folder.parent / "saved-by-peft"
    shutil.copytree(folder, copy_of, dirs_exist_ok=True)
    bare = {name.replace("magnitude_vector.weight", "magnitude_vector"): weight for name, weight in weights.items()}
    save_file(bare, copy_of / "adapter_model.safetensors", metadata={"format": "pt"})
    for door in (by_load_checkpoint, by_load_storm_going_on):
        torch.testing.assert_close(answer_of(*door(copy_of), rows)[0], expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained", [("lora", "plain"), ("lora", "storm")], indirect=True)
def test_adapter_without_the_projector_is_refused(trained):
    folder, _ = trained
    weights = load_file(folder / "adapter_model.safetensors")
    copy_of = folder.parent / "without-projector"
    shutil.copytree(folder, copy_of, dirs_exist_ok=True)
    rest = {name: weight for name, weight in weights.items() if "latent_projector" not in name}
    save_file(rest, copy_of / "adapter_model.safetensors", metadata={"format": "pt"})
    for door in OWN_DOORS:
        with pytest.raises(CheckpointError, match="latent projector|does not fit"):
            door(copy_of)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own default
def test_optimizer_that_was_made_before_the_adapter_is_refused(tmp_path):
    model = tiny_storm("qwen2_5_vl")
    given = {"args": StormAnswerConfig(str(tmp_path), **QUIET), "processing_class": tiny_tokenizer()}
    rows = {"train_dataset": tiny_rows(), "data_collator": TinyCollator("qwen2_5_vl")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigurationError, match="got one that was made before they were, so that nothing would be"):
        StormAnswerTrainer(model, **given, **rows, optimizers=(optimizer, None), peft_config=LoraConfig(r=2))
