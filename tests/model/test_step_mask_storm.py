"""Latents that keep to their own step: what they see, and that all ways to run them agree."""

import pytest
import torch
from tests.reference import append, pad_on_the_right, row_of
from tests.tiny import EOS, LATENT, LATENT_END, LATENT_START, tiny_inputs, tiny_storm, with_clip_mask
from torch.testing import assert_close
from transformers import MistralConfig, MistralModel, StaticCache

from storm_hf.errors import ConfigurationError
from storm_hf.model import StormConfig
from storm_hf.model.latent_block_storm import find_latent_block
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.model.step_mask_storm import check_layers, step_attention


KINDS = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "smolvlm", "internvl")  # full attention in every layer
SUFFIX = (LATENT_END, 7, 8)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
BLOCK = (LATENT_START, LATENT, LATENT_END)
CLIP, OPEN, SLOT, CLOSED = 1, 2, 3, 4  # a vocabulary of its own, to write masks down by hand


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return tiny_storm(kind, latent_attention="step")


@pytest.fixture(scope="module")
def inputs(kind):
    return tiny_inputs(kind, suffix=SUFFIX)


# --- who sees whom -----------------------------------------------------------------------------------------------------


@pytest.fixture
def config():
    ids = {"latent_start_token_id": OPEN, "latent_token_id": SLOT, "latent_end_token_id": CLOSED}
    return StormConfig(
        vlm_config={"model_type": "qwen2_5_vl", "video_token_id": CLIP, "image_token_id": 99},
        **ids,
        max_num_latents=64,
    )


def seen_of(rows, config, mask=None):
    ids = torch.tensor(rows)
    mask = None if mask is None else torch.tensor(mask)
    sees, later = step_attention(ids, mask, find_latent_block(ids, config), config)
    return [[row.nonzero()[:, 0].tolist() for row in one] for one in sees], [
        one.nonzero()[:, 0].tolist() for one in later
    ]


def test_each_latent_is_made_from_its_stretch_of_the_clip(config):
    """Three patches of two tokens: the beginning and two steps. Columns 0-5 clip, 6 question, 7 start, 8 and 9 latents, 10 end."""
    (sees,), (later,) = seen_of([[CLIP] * 6 + [50, OPEN, SLOT, SLOT, CLOSED, 51]], config)
    assert sees[3] == [0, 1, 2, 3]  # the clip is as ever
    assert sees[6] == [0, 1, 2, 3, 4, 5, 6]  # and so is the question
    assert sees[7] == [0, 1, 2, 3, 7]  # the first latent: the beginning and the first step
    assert sees[8] == [4, 5, 8]  # the second: its own step, and the first latent
    assert sees[9] == [9]
    assert sees[10] == [6, 9, 10]
    assert sees[11] == [6, 9, 10, 11]
    assert later == [6, 9, 10, 11]


def test_stretches_cover_a_clip_that_does_not_divide(config):
    (sees,), _ = seen_of([[CLIP] * 7 + [OPEN, SLOT, SLOT, SLOT, CLOSED]], config)
    assert sees[7] == [0, 1, 2, 3, 7]
    assert sees[8] == [3, 4, 5, 8]
    assert sees[9] == [5, 6, 9]


def test_padding_is_seen_by_nobody_and_counts_for_no_stretch(config):
    row = [CLIP] * 6 + [50, OPEN, SLOT, SLOT, CLOSED]
    (plain,), _ = seen_of([row], config)
    (padded,), (later,) = seen_of([[0, 0, *row]], config, [[0, 0] + [1] * len(row)])
    assert padded[2:] == [[column + 2 for column in seen] for seen in plain]
    assert min(later) >= 2


def test_prompt_without_a_clip_leaves_each_latent_alone_with_the_one_before(config):
    (sees,), _ = seen_of([[50, OPEN, SLOT, SLOT, CLOSED]], config)
    assert sees[1] == [1]
    assert sees[2] == [2]


# --- the same, however it is run ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_one_pass_over_given_latents_equals_the_rollout(model, inputs):
    rolled_out = model(**inputs)
    forced = model(**inputs, forced_latents=rolled_out.latents)
    assert_close(forced.latents, rolled_out.latents, **CLOSE)
    assert_close(forced.logits[:, -3:], rolled_out.logits[:, -3:], **CLOSE)


@torch.no_grad()
def test_enough_parallel_sweeps_equal_the_rollout(model, inputs):
    rolled_out, swept = model(**inputs), model(**inputs, rollout_gradient=RolloutGradient(jacobi_sweeps=3))
    assert_close(swept.latents, rolled_out.latents, **CLOSE)
    assert_close(swept.logits[:, -3:], rolled_out.logits[:, -3:], **CLOSE)


@torch.no_grad()
def test_batch_equals_its_rows_and_padding_may_be_on_either_side(model, inputs):
    batch, right = model(**inputs), model(**pad_on_the_right(inputs))
    assert_close(right.latents, batch.latents, **CLOSE)
    for row in range(2):
        alone = model(**row_of(inputs, row))
        assert_close(alone.latents[0], batch.latents[row], **CLOSE)
        assert_close(alone.logits[0, -3:], batch.logits[row, -3:], **CLOSE)


@torch.no_grad()
def test_cached_answer_equals_an_uncached_one(model, inputs):
    answer = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)[:, -4:]
    longer = inputs
    for step in range(4):
        logits = model(**longer).logits[:, -1]
        logits[:, [EOS, *BLOCK]] = -torch.inf  # what generation may not write here
        expected = logits.argmax(dim=-1)
        assert torch.equal(answer[:, step], expected)
        longer = append(longer, expected[:, None])


@pytest.mark.parametrize("has_gradient", [False, True])
def test_cached_logits_equal_uncached_ones(model, inputs, has_gradient):
    tokens = torch.tensor([[5, 6], [9, 4]])
    longer = append(inputs, tokens)
    with torch.set_grad_enabled(has_gradient):
        past = model(**inputs, use_cache=True).cache
        found = model(input_ids=tokens, attention_mask=longer["attention_mask"], cache=past)
        assert_close(found.logits, model(**longer).logits[:, -2:], **CLOSE)


@torch.no_grad()
def test_answer_from_embeddings_equals_one_from_tokens(model, inputs):
    tokens = torch.tensor([[5, 6], [9, 4]])
    mask = append(inputs, tokens)["attention_mask"]
    embeds = model.get_input_embeddings()(tokens)

    def answer(**given):
        past = model(**inputs, use_cache=True).cache
        return model(**given, attention_mask=mask, cache=past).logits

    assert_close(answer(inputs_embeds=embeds), answer(input_ids=tokens), **CLOSE)


@torch.no_grad()
def test_cache_that_was_emptied_hides_nothing(model, inputs):
    tokens = torch.randint(4, 50, (2, 60), generator=torch.Generator().manual_seed(1))
    past = model(**inputs, use_cache=True).cache
    past.reset()
    past.crop(0)
    model(input_ids=tokens[:, :50], cache=past)
    found = model(input_ids=tokens[:, 50:], cache=past)
    assert_close(found.logits, model(input_ids=tokens).logits[:, 50:], **CLOSE)


@torch.no_grad()
def test_bottleneck_takes_the_clip_from_question_and_answer_too(model, inputs, kind):
    latents = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(3))
    pixels = {
        name: value for name, value in tiny_inputs(kind, suffix=SUFFIX, seed=7).items() if "pixel_values" in name
    }
    given = {"forced_latents": latents, "latent_bottleneck": True}
    inputs = with_clip_mask(inputs)
    one, other = model(**inputs, **given), model(**{**inputs, **pixels}, **given)
    assert torch.equal(one.logits[:, -3:], other.logits[:, -3:])
    assert not torch.allclose(one.latents, other.latents)


@torch.no_grad()
def test_beams_with_a_cache_equal_beams_without(model, inputs):
    one = model.generate(**inputs, max_new_tokens=3, num_beams=2, do_sample=False)
    assert torch.equal(one, model.generate(**inputs, max_new_tokens=3, num_beams=2, do_sample=False, use_cache=False))


@torch.no_grad()
def test_eager_and_sdpa_attention_agree(kind, inputs):
    model = tiny_storm(kind, latent_attention="step")
    expected = model(**inputs)
    model.set_attn_implementation("eager")
    found = model(**inputs)
    assert_close(found.latents, expected.latents, **CLOSE)
    assert_close(found.logits[:, -3:], expected.logits[:, -3:], **CLOSE)


def test_gradient_of_checkpointed_layers_is_the_same(inputs, kind):
    def gradient(is_checkpointing):
        model = tiny_storm(kind, latent_attention="step").train()
        if is_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] > 99, -100)).loss.backward()
        return model.model.latent_projector.layers[1].weight.grad

    assert_close(gradient(True), gradient(False), **CLOSE)


# --- what it does ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_full_attention_is_the_default_and_differs(kind, model, inputs):
    full = tiny_storm(kind)
    assert full.config.latent_attention == "full"
    assert not torch.allclose(full(**inputs).latents, model(**inputs).latents, atol=1e-3)


@torch.no_grad()
def test_latents_do_not_depend_on_how_the_question_is_put(model, inputs):
    asked = inputs["input_ids"].clone()
    asked[:, -(len(SUFFIX) + 4 + 2)] = 9  # the last word before the start token
    assert torch.equal(model(**{**inputs, "input_ids": asked}).latents, model(**inputs).latents)


def test_setting_is_saved_with_the_checkpoint(tmp_path):
    tiny_storm("qwen2_5_vl", latent_attention="step").save_pretrained(tmp_path)
    assert StormConfig.from_pretrained(tmp_path).latent_attention == "step"


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_other_settings_are_refused():
    with pytest.raises(ConfigurationError, match=r"one of full, step, got 'local'"):
        tiny_storm("qwen2_5_vl", latent_attention="local")


def test_backbone_with_other_layers_is_refused():
    with pytest.raises(ConfigurationError, match="linear_attention"):
        tiny_storm("qwen3_5", latent_attention="step")


def test_backbone_whose_window_slides_in_every_layer_is_refused():
    decoder = MistralModel(MistralConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8))
    with pytest.raises(ConfigurationError, match="sliding_attention"):
        check_layers(decoder)
    decoder.config.sliding_window = None
    check_layers(decoder)


@torch.no_grad()
def test_attention_that_takes_no_mask_is_refused(inputs, kind):
    model = tiny_storm(kind, latent_attention="step")
    model.get_decoder().config._attn_implementation = "flash_attention_2"
    with pytest.raises(ConfigurationError, match="'sdpa' or 'eager'.*'flash_attention_2'"):
        model(**inputs)


@torch.no_grad()
def test_prompt_in_pieces_is_refused(model, inputs):
    with pytest.raises(ConfigurationError, match="read whole"):
        model.generate(**inputs, max_new_tokens=2, prefill_chunk_size=4)


@torch.no_grad()
def test_static_cache_is_refused(inputs, kind):
    model = tiny_storm(kind, latent_attention="step")
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=200)
    with pytest.raises(ConfigurationError, match="static"):
        model(**inputs, cache=cache)
