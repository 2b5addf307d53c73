"""The model as an ordinary transformers model: outputs, loss, refusals, saving and loading."""

from functools import partial

import pytest
import torch
from tests.tiny import (
    LATENT,
    LATENT_END,
    LATENT_START,
    tiny_inputs,
    tiny_storm,
)
from torch.testing import assert_close
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    Qwen2Config,
    StaticCache,
)

from storm_hf.errors import BackboneError, ConfigurationError, LatentError
from storm_hf.model import StormConfig, StormForConditionalGeneration


SUFFIX = (LATENT_END, 7, 8)


@pytest.fixture(scope="module")
def model():
    return tiny_storm("qwen3_vl")


@pytest.fixture
def inputs():
    return tiny_inputs("qwen3_vl", suffix=SUFFIX)


# --- what forward returns ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_output_has_logits_latents_and_a_cache_of_the_whole_sequence(kind, storm):
    inputs = tiny_inputs(kind, suffix=SUFFIX)
    output = storm(**inputs)
    length = inputs["input_ids"].shape[1]
    assert output.logits.shape == (2, length, 128)
    assert output.latents.shape == (2, 4, 32)
    assert output.cache.get_seq_length() == length
    assert (output.loss, output.hidden_states, output.attentions) == (None, None, None)
    assert storm(**inputs, use_cache=False).cache is None


@torch.no_grad()
def test_return_dict_false_gives_the_same_as_a_tuple(kind, storm):
    inputs = tiny_inputs(kind, suffix=SUFFIX)
    output = storm(**inputs)
    as_tuple = storm(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], output.logits)
    assert torch.equal(as_tuple[-1], output.latents)


@torch.no_grad()
def test_rows_of_one_length_need_no_mask(kind, storm):
    inputs = tiny_inputs(kind, prompt_lengths=(4, 4), suffix=SUFFIX)
    expected = storm(**inputs)
    assert inputs.pop("attention_mask").all()
    output = storm(**inputs)
    assert_close(output.logits, expected.logits, rtol=1e-4, atol=5e-6)
    assert_close(output.latents, expected.latents, rtol=1e-4, atol=5e-6)


@torch.no_grad()
def test_logits_to_keep_projects_the_last_positions_only(model, inputs):
    assert torch.equal(model(**inputs, logits_to_keep=2).logits, model(**inputs).logits[:, -2:])


@torch.no_grad()
def test_static_cache_gives_the_same_as_a_dynamic_one(kind, storm):
    inputs = tiny_inputs(kind, suffix=SUFFIX)
    cache = StaticCache(config=storm.config.get_text_config(), max_cache_len=64)
    is_token = inputs["attention_mask"].bool()
    output, expected = storm(**inputs, cache=cache), storm(**inputs)
    assert_close(output.logits[is_token], expected.logits[is_token], rtol=1e-4, atol=5e-6)
    assert_close(output.latents, expected.latents, rtol=1e-4, atol=5e-6)


@torch.no_grad()
def test_without_a_latent_token_placeholders_are_ordinary_tokens(inputs):
    """The control arm: pause tokens with a learned embedding, and no rollout."""
    model = tiny_storm("qwen3_vl", latent_token_id=None)
    output = model(**inputs)
    assert output.latents is None
    assert torch.equal(output.logits, model.backbone(**inputs).logits)


@torch.no_grad()
def test_prompt_may_be_embeddings_when_it_has_no_latents():
    model = tiny_storm("qwen3_vl")
    embeds = model.get_input_embeddings()(torch.tensor([[5, 6, 7]]))
    assert_close(model(inputs_embeds=embeds).logits, model(input_ids=torch.tensor([[5, 6, 7]])).logits)


# --- the loss ----------------------------------------------------------------------------------------------------------


def supervised(inputs):
    labels = inputs["input_ids"].clone()
    labels[:, :-2] = -100
    return labels


@torch.no_grad()
def test_loss_is_the_mean_over_supervised_tokens(model, inputs):
    output = model(**inputs, labels=supervised(inputs))
    expected = torch.nn.functional.cross_entropy(
        output.logits[:, -3:-1].flatten(0, 1), inputs["input_ids"][:, -2:].flatten()
    )
    assert_close(output.loss, expected)


@torch.no_grad()
def test_loss_is_divided_by_the_items_of_the_whole_batch_when_they_are_given(model, inputs):
    labels = supervised(inputs)
    mean, shared = model(**inputs, labels=labels).loss, model(**inputs, labels=labels, num_items_in_batch=16).loss
    assert_close(shared, mean * 4 / 16)


@torch.no_grad()
def test_shifted_labels_give_the_same_loss(model, inputs):
    labels = supervised(inputs)
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    expected = model(**inputs, labels=labels).loss
    assert torch.equal(model(**inputs, labels=labels, shift_labels=shifted).loss, expected)


@torch.no_grad()
def test_training_projects_supervised_positions_only(model, inputs):
    seen = []
    handle = model.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    try:
        output = model.train()(**inputs, labels=supervised(inputs))
    finally:
        handle.remove()
        model.eval()
    assert output.logits is None
    assert seen == [(4, 32)]


@torch.no_grad()
def test_batch_without_a_supervised_token_costs_nothing(model, inputs):
    assert model(**inputs, labels=torch.full_like(inputs["input_ids"], -100)).loss == 0


@pytest.mark.parametrize(
    ("name", "value", "change"),
    [
        ("logit_scale", 0.5, lambda logits: 0.5 * logits),
        ("logits_scaling", 4.0, lambda logits: logits / 4.0),
        ("final_logit_softcapping", 0.2, lambda logits: 0.2 * torch.tanh(logits / 0.2)),
    ],
)
@torch.no_grad()
def test_head_scales_and_caps_as_the_backbone_says(name, value, change):
    model, states = tiny_storm("qwen3_vl"), torch.randn(2, 3, 32)
    expected = change(model.compute_logits(states))
    setattr(model.config.get_text_config(), name, value)
    assert_close(model.compute_logits(states), expected)


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ([5, LATENT_START, LATENT, LATENT_END, 6, LATENT_START, LATENT, LATENT_END], "exactly one latent block"),
        ([LATENT, LATENT_END, 5], "Put `<|latent_start|>` and the question before"),
        ([5, LATENT, 6], "chat template"),
        ([5, LATENT_START, LATENT, 6], "chat template"),
        ([5, LATENT_START, *[LATENT] * 65, LATENT_END], "max_num_latents=64"),
    ],
)
def test_broken_latent_block_is_refused_by_forward_and_by_generate(model, row, advice):
    for run in (model, partial(model.generate, max_new_tokens=2)):
        with pytest.raises(LatentError) as error:
            run(input_ids=torch.tensor([row]))
        assert advice in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3, 32), (1, 4, 32), (2, 4, 16), (2, 4)])
def test_forced_latents_that_do_not_fit_the_block_are_refused(model, inputs, shape):
    with pytest.raises(LatentError, match=r"room for latents of shape \(2, 4, 32\)"):
        model(**inputs, forced_latents=torch.zeros(shape))


def test_intervention_in_latents_that_are_given_is_refused(model, inputs):
    given = torch.zeros(2, 4, 32)
    with pytest.raises(ConfigurationError, match="`latent_intervention` replaces the latents of a rollout"):
        model(**inputs, forced_latents=given, latent_intervention=lambda step, latent: latent)
    with pytest.raises(ConfigurationError, match="`output_latents=True` returns the latents of a rollout"):
        model.generate(**inputs, forced_latents=given, output_latents=True)


@torch.no_grad()
def test_block_that_begins_behind_a_foreign_cache_is_refused(model):
    cache = model.backbone(input_ids=torch.tensor([[5, 6]])).cache
    with pytest.raises(LatentError, match="this cache holds none"):
        model(input_ids=torch.tensor([[LATENT, LATENT_END]]), cache=cache)


def test_text_only_backbone_is_refused():
    with pytest.raises(BackboneError, match="got a `qwen2` configuration without a vision part. Use for example"):
        StormForConditionalGeneration(StormConfig(vlm_config=Qwen2Config(num_hidden_layers=1, hidden_size=8)))


# --- saving and loading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "auto_class", [AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM]
)
@torch.no_grad()
def test_every_auto_class_loads_the_model_that_answers(model, inputs, tmp_path, auto_class):
    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is StormForConditionalGeneration
    assert torch.equal(loaded.eval()(**inputs).logits, model(**inputs).logits)


def test_half_precision_rolls_out(inputs):
    model = tiny_storm("qwen3_vl").to(torch.bfloat16)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(torch.bfloat16)
    with torch.no_grad():
        output = model(**inputs)
        forced = model(**inputs, forced_latents=torch.zeros(2, 4, 32))
    assert output.latents.dtype == output.logits.dtype == torch.bfloat16
    assert output.logits.isfinite().all()
    assert forced.latents.dtype == torch.bfloat16
