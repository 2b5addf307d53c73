"""The rollout is one computation, however it is run: with or without a cache, alone or in a batch, padded on either side."""

import pytest
import torch
from tests.reference import pad_on_the_right, recompute_latents, row_of, run_in_parallel
from tests.tiny import KINDS, LATENT_END, tiny_inputs, tiny_storm
from torch.testing import assert_close
from transformers import DynamicCache, StaticCache


SUFFIX = (LATENT_END, 7, 8)
CLOSE = {"rtol": 1e-4, "atol": 5e-6}


@pytest.fixture(scope="module")
def inputs(kind):
    return tiny_inputs(kind, suffix=SUFFIX)


@pytest.fixture(scope="module")
def output(storm, inputs):
    with torch.no_grad():
        return storm(**inputs, output_hidden_states=True)


@pytest.fixture(scope="module")
def eager_storm(kind):
    model = tiny_storm(kind)
    model.set_attn_implementation("eager")
    return model


@torch.no_grad()
def test_cached_rollout_equals_recomputing_every_step(storm, inputs, output):
    assert_close(output.latents, recompute_latents(storm, inputs), **CLOSE)


@torch.no_grad()
def test_cached_rollout_equals_one_parallel_pass_with_its_latents(storm, inputs, output):
    parallel = run_in_parallel(storm, inputs, output.latents)
    is_token = inputs["attention_mask"].bool()
    assert_close(output.logits[is_token], parallel.logits[is_token], **CLOSE)


@torch.no_grad()
def test_hidden_states_of_all_layers_equal_those_of_one_parallel_pass(storm, inputs, output):
    parallel = run_in_parallel(storm, inputs, output.latents)
    is_token = inputs["attention_mask"].bool()
    assert len(output.hidden_states) == len(parallel.hidden_states) == 3
    for layer, expected in zip(output.hidden_states, parallel.hidden_states, strict=True):
        assert layer.shape[:2] == inputs["input_ids"].shape
        assert_close(layer[is_token], expected[is_token], **CLOSE)


@torch.no_grad()
def test_attentions_equal_those_of_one_parallel_pass(eager_storm, inputs):
    output = eager_storm(**inputs, output_attentions=True)
    parallel = run_in_parallel(eager_storm, inputs, output.latents, output_attentions=True)
    is_token = inputs["attention_mask"].bool()
    length = inputs["input_ids"].shape[1]
    full = [layer for layer in output.attentions if layer is not None]
    expected = [layer for layer in parallel.attentions if layer is not None]
    assert len(full) == len(expected) >= 1
    for layer, other in zip(full, expected, strict=True):
        assert layer.shape[-2:] == (length, length)
        assert_close(layer.transpose(1, 2)[is_token], other.transpose(1, 2)[is_token], **CLOSE)
        assert layer.triu(1).transpose(1, 2)[is_token].count_nonzero() == 0


@torch.no_grad()
def test_row_of_a_batch_equals_the_row_alone(storm, inputs, output):
    for index in range(2):
        alone = storm(**row_of(inputs, index))
        is_token = inputs["attention_mask"][index].bool()
        assert_close(output.logits[index, is_token], alone.logits[0], **CLOSE)
        assert_close(output.latents[index], alone.latents[0], **CLOSE)


@torch.no_grad()
def test_padding_on_the_right_equals_padding_on_the_left(storm, inputs, output):
    right = pad_on_the_right(inputs)
    moved = storm(**right, output_hidden_states=True)
    on_the_left, on_the_right = inputs["attention_mask"].bool(), right["attention_mask"].bool()
    assert_close(moved.latents, output.latents, **CLOSE)
    assert_close(moved.logits[on_the_right], output.logits[on_the_left], **CLOSE)
    for layer, expected in zip(moved.hidden_states, output.hidden_states, strict=True):
        assert_close(layer[on_the_right], expected[on_the_left], **CLOSE)


@torch.no_grad()
def test_attentions_of_rows_padded_on_the_right_are_moved_back(eager_storm, inputs):
    right = pad_on_the_right(inputs)
    left_layers = eager_storm(**inputs, output_attentions=True).attentions
    right_layers = eager_storm(**right, output_attentions=True).attentions
    on_the_left, on_the_right = inputs["attention_mask"].bool(), right["attention_mask"].bool()
    for layer, expected in zip(right_layers, left_layers, strict=True):
        for row in range(2 if layer is not None else 0):
            got = layer[row][:, on_the_right[row]][:, :, on_the_right[row]]
            assert_close(got, expected[row][:, on_the_left[row]][:, :, on_the_left[row]], **CLOSE)


@torch.no_grad()
def test_without_latents_the_model_is_the_backbone_to_the_last_bit(kind, storm):
    inputs = tiny_inputs(kind, num_latents=0, suffix=(7, 8))
    output = storm(**inputs)
    assert output.latents is None
    assert torch.equal(output.logits, storm.backbone(**inputs).logits)


@torch.no_grad()
def test_forcing_the_models_own_latents_equals_the_rollout(storm, inputs, output):
    forced = storm(**inputs, forced_latents=output.latents)
    is_token = inputs["attention_mask"].bool()
    assert_close(forced.latents, output.latents, **CLOSE)
    assert_close(forced.logits[is_token], output.logits[is_token], **CLOSE)


@torch.no_grad()
def test_forced_latents_are_read_by_the_answer_and_by_later_latents_only(storm, inputs, output):
    targets = output.latents.clone()
    targets[:, 1] += 1.0
    forced = storm(**inputs, forced_latents=targets)
    assert_close(forced.latents[:, :2], output.latents[:, :2], **CLOSE)
    assert (forced.latents[:, 2:] - output.latents[:, 2:]).abs().min(dim=-1).values.max() > 0
    assert (forced.logits[:, -1] - output.logits[:, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_identity_intervention_changes_nothing_to_the_last_bit(storm, inputs, output):
    seen = []

    def pass_on(step, latent):
        seen.append((step, tuple(latent.shape)))
        return latent

    observed = storm(**inputs, latent_intervention=pass_on)
    assert torch.equal(observed.logits, output.logits)
    assert torch.equal(observed.latents, output.latents)
    assert seen == [(step, (2, 32)) for step in range(4)]


@torch.no_grad()
def test_zeroed_latents_change_the_logits_of_the_answer(storm, inputs, output):
    zeroed = storm(**inputs, latent_intervention=lambda step, latent: torch.zeros_like(latent))
    assert (zeroed.logits[:, -1] - output.logits[:, -1]).abs().max() > 1e-3
    assert torch.equal(zeroed.latents[:, 0], output.latents[:, 0])  # the model's own, before the intervention


@torch.no_grad()
def test_every_token_is_processed_once_in_k_plus_one_calls(storm, inputs):
    lengths = []
    handle = storm.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        storm(**inputs)
    finally:
        handle.remove()
    num_prompt = inputs["input_ids"].shape[1] - 4 - len(SUFFIX)
    assert lengths == [num_prompt, 1, 1, 1, 1 + len(SUFFIX)]  # the last latent runs with what follows it


@torch.no_grad()
def test_step_does_not_see_the_columns_of_a_static_cache_that_nothing_was_written_to(storm, kind):
    inputs = tiny_inputs(kind, (5, 3), suffix=SUFFIX)
    length = inputs["input_ids"].shape[1] + 3
    cache = StaticCache(config=storm.config.get_text_config(), max_cache_len=length)
    assert_close(storm(**inputs, cache=cache).latents, storm(**inputs).latents, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("lengths", [(5, 5), (5, 3)], ids=["no padding", "padding"])
def test_static_cache_of_generate_thinks_the_same(storm, kind, lengths):
    inputs = tiny_inputs(kind, lengths)
    static, dynamic = (
        storm.generate(
            **inputs, max_new_tokens=4, output_latents=True, disable_compile=True, cache_implementation=name
        )
        for name in ("static", "dynamic")
    )
    assert_close(static.latents, dynamic.latents, rtol=1e-4, atol=5e-6)
    assert torch.equal(static.sequences, dynamic.sequences)


@torch.no_grad()
def test_prompt_in_two_pieces_cut_inside_the_block_thinks_the_same(storm, inputs, output):
    empty_cache = DynamicCache(config=storm.config.get_text_config())
    cut = int((inputs["input_ids"][0] == LATENT_END).nonzero()[0]) - 2
    positions = storm._prepare_position_ids_for_generation(
        inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"}
    )
    mask, input_ids = inputs["attention_mask"], inputs["input_ids"]
    first = dict(inputs, input_ids=input_ids[:, :cut], attention_mask=mask[:, :cut], position_ids=positions[..., :cut])
    if "mm_token_type_ids" in inputs:
        first["mm_token_type_ids"] = inputs["mm_token_type_ids"][:, :cut]
    cache = storm(**first, use_cache=True, cache=empty_cache).cache
    steps = []
    rest = storm(
        input_ids=input_ids[:, cut:],
        attention_mask=mask,
        position_ids=positions[..., cut:],
        cache=cache,
        latent_intervention=lambda step, latent: steps.append(step) or latent,
    )
    assert steps == [2, 3]
    assert_close(rest.logits, output.logits[:, cut:], **CLOSE)
    assert_close(rest.latents, output.latents[:, 2:], **CLOSE)


@pytest.mark.parametrize("projector", ["mlp", "identity"])
@torch.no_grad()
def test_every_projector_rolls_out(projector):
    model = tiny_storm(KINDS[0], latent_projector=projector, latent_scale=0.5)
    inputs = tiny_inputs(KINDS[0], suffix=SUFFIX)
    assert_close(model(**inputs).latents, recompute_latents(model, inputs), **CLOSE)


@torch.no_grad()
def test_single_layers_of_hidden_states_are_collected_across_the_pieces(storm, inputs, output):
    for batch in (inputs, pad_on_the_right(inputs)):  # aligned latent blocks, and blocks that the rows are moved for
        everything = storm(**batch, output_hidden_states=True).hidden_states
        first, middle, last = storm(**batch, output_hidden_states=[0, -1]).hidden_states
        assert middle is None
        assert_close((first, last), (everything[0], everything[-1]), **CLOSE)
