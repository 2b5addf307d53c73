"""A thought adapter acts from `<|latent_start|>` on, however the prompt is run, and nothing before it knows that it is there."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tests.reference import append, pad_on_the_right, row_of
from tests.tiny import KINDS, LATENT, LATENT_END, LATENT_START, VISION_TOKENS, tiny_inputs, tiny_processor, tiny_storm
from tests.training.tiny_training import NUM_LATENTS, STAGES, logged, plain_rows, tiny_trainer
from torch.testing import assert_close
from transformers import set_seed

from storm_hf import StormAnswerConfig, StormAnswerTrainer
from storm_hf.errors import ConfigurationError
from storm_hf.model import StormForConditionalGeneration
from storm_hf.model.thought_adapter_storm import ADAPTER_NAME, thought_layers


SUFFIX = (LATENT_END, 7, 8)
CLOSE = {"rtol": 1e-4, "atol": 5e-6}
SETTINGS = {"r": 4, "lora_alpha": 8}
NUM_TOKENS = 4
GREEDY = {"max_new_tokens": NUM_TOKENS, "eos_token_id": None, "suppress_tokens": VISION_TOKENS, "do_sample": False}


def trained_storm(kind, **config):
    """A tiny STORM whose thought adapter is no longer zero."""
    model = tiny_storm(kind, **config)
    model.add_thought_adapter(**SETTINGS)
    set_seed(1)
    for layer in thought_layers(model.get_decoder()):
        torch.nn.init.normal_(layer.lora_B[ADAPTER_NAME].weight, std=0.1)
    return model


@torch.no_grad()
def answer_of(model, inputs):
    """The greedy answer to one prompt, the whole of it run again for each token."""
    for _ in range(NUM_TOKENS):
        logits = model(**inputs).logits[:, -1]
        logits[:, [*VISION_TOKENS, LATENT, LATENT_START, LATENT_END]] = -torch.inf
        inputs = append(inputs, logits.argmax(dim=-1, keepdim=True))
    return inputs["input_ids"][:, -NUM_TOKENS:]


@pytest.fixture(scope="module")
def adapted(kind):
    return trained_storm(kind)


@pytest.fixture(scope="module")
def inputs(kind):
    return tiny_inputs(kind, suffix=SUFFIX)


@pytest.fixture(scope="module")
def output(adapted, inputs):
    with torch.no_grad():
        return adapted(**inputs)


@torch.no_grad()
def test_without_latents_the_model_is_its_backbone_to_the_last_bit(kind, storm, adapted):
    inputs = tiny_inputs(kind, num_latents=0, suffix=(7, 8))
    assert torch.equal(adapted(**inputs).logits, storm(**inputs).logits)
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    plain["input_ids"] = plain["input_ids"].clamp(max=90)
    assert torch.equal(adapted(**plain).logits, storm(**plain).logits)


@torch.no_grad()
def test_prompt_before_the_thought_is_read_as_by_the_backbone(storm, adapted, inputs, output):
    first = int((inputs["input_ids"][0] == LATENT_START).nonzero())
    is_token = inputs["attention_mask"].bool()
    is_token[:, first:] = False
    expected = storm(**inputs)
    assert_close(output.logits[is_token], expected.logits[is_token], **CLOSE)
    assert not torch.allclose(output.logits[:, first], expected.logits[:, first], atol=0.01)
    assert not torch.allclose(output.latents, expected.latents, atol=0.01)


@torch.no_grad()
def test_new_adapter_changes_nothing(kind, storm, inputs):
    model = tiny_storm(kind)
    model.add_thought_adapter(**SETTINGS)
    assert_close(model(**inputs).logits, storm(**inputs).logits, **CLOSE)


@torch.no_grad()
def test_forced_equals_rolled_out(adapted, inputs, output):
    forced = adapted(**inputs, forced_latents=output.latents)
    is_token = inputs["attention_mask"].bool()
    assert_close(forced.logits[is_token], output.logits[is_token], **CLOSE)
    assert_close(forced.latents, output.latents, **CLOSE)


@torch.no_grad()
def test_row_alone_equals_the_row_of_a_batch_padded_on_either_side(adapted, inputs, output):
    right = adapted(**pad_on_the_right(inputs))
    for index in range(2):
        alone = adapted(**row_of(inputs, index))
        for batched in (output, right):
            assert_close(batched.latents[index], alone.latents[0], **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        *({"prefill_chunk_size": size} for size in range(2, 9)),
    ],
    ids=str,
)
def test_generated_answer_equals_the_one_of_whole_passes(kind, adapted, options):
    inputs = tiny_inputs(kind)
    expected = torch.cat([answer_of(adapted, row_of(inputs, row)) for row in range(2)])
    sequences = adapted.generate(**inputs, **GREEDY, **options)
    assert torch.equal(sequences[:, inputs["input_ids"].shape[1] :], expected)


def test_beams_equal_those_of_a_row_alone(kind, adapted):
    inputs = tiny_inputs(kind)
    batched = adapted.generate(**inputs, **GREEDY, num_beams=2)
    alone = row_of(inputs, 0)
    own = adapted.generate(**alone, **GREEDY, num_beams=2)
    assert torch.equal(batched[0, -NUM_TOKENS:], own[0, -NUM_TOKENS:])


def test_after_an_answer_the_backbone_is_alone_again(kind, storm, adapted):
    adapted.generate(**tiny_inputs(kind), **GREEDY)
    inputs = tiny_inputs(kind, num_latents=0, suffix=(7, 8))
    with torch.no_grad():
        assert torch.equal(adapted(**inputs).logits, storm(**inputs).logits)


def test_saved_model_opens_with_its_adapter(adapted, inputs, output, tmp_path):
    adapted.save_pretrained(tmp_path)
    opened = StormForConditionalGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(opened(**inputs).logits, output.logits)


@pytest.mark.parametrize("is_checkpointing", [False, True])
def test_gradient_of_the_rollout_is_that_of_whole_passes(kind, inputs, is_checkpointing):
    model = trained_storm(kind).train()
    for name, weight in model.named_parameters():
        weight.requires_grad_(f".{ADAPTER_NAME}." in name or "latent_projector" in name)

    def gradient(output):
        model.zero_grad()
        (output.logits[:, -2:].square().mean() + output.latents.square().mean()).backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}

    fed = torch.zeros(2, 4, model.config.hidden_size)
    for _ in range(4):  # each pass makes one more latent right
        fed = model(**inputs, forced_latents=fed).latents
    expected = gradient(model(**inputs, forced_latents=fed))
    if is_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    for name, found in gradient(model(**inputs)).items():
        assert_close(found, expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].abs().max()))


def test_prompt_keeps_no_activations_though_layers_are_checkpointed(kind):
    model = trained_storm(kind).train()
    model.requires_grad_(False)
    model.model.latent_projector.requires_grad_(True)
    model.activation_checkpointing_enable({"use_reentrant": False})
    recorded = []
    decoder = model.get_decoder()
    hook = decoder.register_forward_hook(
        lambda module, inputs, output: recorded.append(output.last_hidden_state.requires_grad)
    )
    model(**tiny_inputs(kind, suffix=SUFFIX))
    hook.remove()
    assert recorded[:2] == [False, False]  # the prompt, and its last token
    assert all(recorded[2:])


@pytest.mark.parametrize("stage", STAGES)
def test_training_moves_the_adapter_and_the_projector_alone(stage, kind, tmp_path):
    model = tiny_storm(kind, num_latents=NUM_LATENTS)
    model.add_thought_adapter(**SETTINGS)
    trainer = tiny_trainer(stage, kind, tmp_path, model=model)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if f".{ADAPTER_NAME}." in name or "latent_projector" in name}


def test_resumed_run_equals_the_uninterrupted_one(tmp_path):
    def run(folder, **config):
        model = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS)
        set_seed(2)
        model.add_thought_adapter(**SETTINGS)
        config = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, **config}
        return tiny_trainer("answer", "qwen2_5_vl", folder, model=model, **config)

    whole = run(tmp_path / "whole")
    whole.train()
    run(tmp_path / "cut", max_steps=2).train()
    resumed = run(tmp_path / "cut")
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_half_a_model_trains_its_adapter_in_float32(tmp_path):
    model = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS).bfloat16()
    model.add_thought_adapter(**SETTINGS)
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model)
    trainer.train()
    trained = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    frozen = {weight.dtype for weight in model.parameters() if not weight.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
    inputs = tiny_inputs("qwen2_5_vl", num_latents=NUM_LATENTS)
    halved = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
    assert model.eval().generate(**halved, **GREEDY).shape[1] == inputs["input_ids"].shape[1] + NUM_TOKENS


def test_vision_tower_trains_beside_the_adapter_where_it_shall(tmp_path):
    model = trained_storm("qwen2_5_vl", num_latents=NUM_LATENTS)
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model, freeze_vision=False)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert any("visual" in name for name in changed)
    assert not any("language_model" in name and f".{ADAPTER_NAME}." not in name for name in changed)


@pytest.mark.parametrize(
    "config",
    [{"keep_language": 1.0, "language_dataset": plain_rows()}, {"peft_config": LoraConfig(r=2)}],
    ids=lambda config: next(reversed(config)),
)
def test_run_that_would_train_something_else_is_refused(config, tmp_path):
    model = trained_storm("qwen2_5_vl", num_latents=NUM_LATENTS)
    with pytest.raises(ConfigurationError, match="thought adapter"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model, **config)


def test_run_without_latents_is_refused(tmp_path):
    model = trained_storm("qwen2_5_vl", num_latents=NUM_LATENTS)
    args = StormAnswerConfig(str(tmp_path), num_latents=0, use_cpu=True, report_to="none")
    rows = Dataset.from_list([{"question": "who", "answer": "me"}])
    with pytest.raises(ConfigurationError, match="num_latents: 0"):
        StormAnswerTrainer(model, args, train_dataset=rows, processing_class=tiny_processor())


@torch.no_grad()
def test_merged_adapter_acts_everywhere(kind, inputs):
    model = trained_storm(kind)
    layers = thought_layers(model.get_decoder())
    for layer in layers:
        layer._disable_adapters = False
    plain = tiny_inputs(kind, num_latents=0, suffix=(7, 8))
    expected = model.backbone(**plain).logits
    model.merge_thought_adapter()
    assert thought_layers(model.get_decoder()) == []
    assert_close(model(**plain).logits, expected, **CLOSE)
    assert_close(model(**inputs).logits, model(**inputs, forced_latents=model(**inputs).latents).logits, **CLOSE)


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # PEFT asks for it by its old name
def test_adapter_of_peft_in_its_layers_is_refused():
    with pytest.warns(UserWarning, match="a second time"):
        model = get_peft_model(trained_storm(KINDS[0]), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(
        ConfigurationError, match="the thought adapter alone.*got the adapter 'default'.*merge_thought"
    ):
        model(**tiny_inputs(KINDS[0]))


@pytest.mark.parametrize("settings", [{"rank": 4}, {"r": 4, "target_modules": ["no_proj"]}, {"r": 0}], ids=str)
def test_settings_of_no_adapter_are_refused(settings):
    model = tiny_storm(KINDS[0])
    with pytest.raises(ConfigurationError, match="thought_adapter"):
        model.add_thought_adapter(**settings)
    assert model.config.thought_adapter is None


@pytest.mark.parametrize(
    "settings",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"modules_to_save": ["norm"]},
        {"trainable_token_indices": [1]},
        {"bias": "all"},
    ],
    ids=str,
)
def test_settings_that_change_other_weights_are_refused(settings):
    model = tiny_storm(KINDS[0])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(
        ConfigurationError, match=f"without latents the model is its backbone; `{next(iter(settings))}"
    ):
        model.add_thought_adapter(r=2, **settings)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_settings_are_saved_or_refused_before_anything_is_trained(tmp_path):
    model = tiny_storm(KINDS[0])
    with pytest.raises(ConfigurationError, match="`exclude_modules` cannot be"):
        model.add_thought_adapter(r=2, exclude_modules=object())
    model.add_thought_adapter(**{**LoraConfig(target_modules={"v_proj", "q_proj"}).to_dict(), "r": 2})
    assert model.config.thought_adapter["target_modules"] == ["q_proj", "v_proj"]
    model.save_pretrained(tmp_path)
    assert StormForConditionalGeneration.from_pretrained(tmp_path).config.thought_adapter["r"] == 2


def test_second_adapter_is_refused():
    with pytest.raises(ConfigurationError, match="without a thought adapter"):
        trained_storm(KINDS[0]).add_thought_adapter(**SETTINGS)
