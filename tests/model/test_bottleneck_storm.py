"""Rows whose answer learns of the clip through the latents alone."""

import pytest
import torch
from tests.tiny import (
    EOS,
    IMAGE,
    LATENT,
    LATENT_END,
    LATENT_START,
    PAD,
    VIDEO,
    tiny_inputs,
    tiny_storm,
    with_clip_mask,
)
from torch.testing import assert_close
from transformers import DynamicCache

from storm_hf.errors import ConfigurationError, LatentError
from storm_hf.model.bottleneck_storm import refuse_single_patch
from storm_hf.model.rollout_storm import RolloutGradient


SUFFIX = (LATENT_END, 7, 8)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
NUM_AFTER = len(SUFFIX)


@pytest.fixture(scope="session")
def model(storm):
    return storm


def ask(kind, **arguments):
    return with_clip_mask(tiny_inputs(kind, **arguments))


@pytest.fixture(scope="module")
def inputs(kind):
    return ask(kind, suffix=SUFFIX)


@pytest.fixture(scope="module")
def other_clip(kind, inputs):
    """The same questions about other videos."""
    pixels = {
        name: value for name, value in tiny_inputs(kind, suffix=SUFFIX, seed=7).items() if "pixel_values" in name
    }
    return {**inputs, **pixels}


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(3))


def answer_part(output):
    return output.logits[:, -NUM_AFTER:]


def without_clip(ids):
    """A row without padding, and without all from the first placeholder of its clip to the last."""
    ids = ids[ids != PAD]
    return ids[~with_clip_mask({"input_ids": ids[None]})["clip_token_mask"][0]]


# --- what it hides -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_answer_knows_nothing_of_the_clip_but_the_latents(model, inputs, other_clip, latents):
    one, other = (model(**given, forced_latents=latents, latent_bottleneck=True) for given in (inputs, other_clip))
    assert torch.equal(answer_part(one), answer_part(other))
    assert not torch.allclose(one.latents, other.latents)  # the latents see it


@torch.no_grad()
def test_without_it_the_answer_sees_the_clip_beside_the_latents(model, inputs, other_clip, latents):
    one, other = (model(**given, forced_latents=latents) for given in (inputs, other_clip))
    assert not torch.allclose(answer_part(one), answer_part(other), atol=1e-3)


@torch.no_grad()
def test_answer_still_sees_question_and_latents(model, kind, inputs, latents):
    answer = answer_part(model(**inputs, forced_latents=latents, latent_bottleneck=True))
    question = inputs["input_ids"].clone()
    question[:, -(NUM_AFTER + 4 + 2)] = 9  # the last word before the start token
    asked = answer_part(model(**{**inputs, "input_ids": question}, forced_latents=latents, latent_bottleneck=True))
    thought = answer_part(model(**inputs, forced_latents=-latents, latent_bottleneck=True))
    for changed in (asked, thought):
        assert not torch.allclose(answer, changed, atol=1e-3)


def test_loss_of_the_answer_reaches_the_clip_through_the_latents_alone(inputs):
    model = tiny_storm("qwen3_vl")
    inputs = ask("qwen3_vl", suffix=SUFFIX)
    pixels = inputs["pixel_values_videos"].requires_grad_()

    def gradient(**arguments):
        (found,) = torch.autograd.grad(answer_part(model(**inputs, **arguments)).sum(), pixels)
        return found

    given = torch.randn(2, 4, 32)
    assert gradient(forced_latents=given, latent_bottleneck=True).abs().max() == 0
    assert gradient(forced_latents=given).abs().max() > 0
    assert gradient(latent_bottleneck=True).abs().max() > 0


@torch.no_grad()
def test_answer_is_that_to_the_same_prompt_without_a_clip(model, kind, inputs, latents):
    """Written down anew: nothing between the first and the last video token, no pixels, the same latents."""
    narrow = model(**inputs, forced_latents=latents, latent_bottleneck=True)
    for row in range(2):
        ids = without_clip(inputs["input_ids"][row])[None]
        alone = model(input_ids=ids, forced_latents=latents[row : row + 1])
        assert_close(answer_part(narrow)[row], answer_part(alone)[0], **CLOSE)


@torch.no_grad()
def test_mask_says_exactly_what_is_taken_out(model, inputs, latents):
    """Times before the first placeholder are the clip's, words between two clips are not."""
    ids = inputs["input_ids"][:1]
    row = {name: value[:1] if len(value) == 2 else value[: len(value) // 2] for name, value in inputs.items()}
    first = int(torch.isin(ids, torch.tensor([IMAGE, VIDEO])).nonzero()[0, 1])
    mask = torch.isin(ids, torch.tensor([IMAGE, VIDEO]))
    mask[0, first - 1 if first else 0] = True  # what stands before the first one
    arguments = {"latent_bottleneck": True, "forced_latents": latents[:1]}
    row["clip_token_mask"] = mask
    found = model(**row, **arguments)
    alone = model(input_ids=ids[(~mask) & (ids != PAD)][None], forced_latents=latents[:1])
    assert_close(answer_part(found), answer_part(alone), **CLOSE)
    said = model.generate(**row, latent_bottleneck=True, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert said.shape[1] == ids.shape[1] + 3


# --- what it leaves as it is -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_rows_without_it_are_as_they_were(model, inputs):
    expected = model(**inputs)
    mixed = model(**inputs, latent_bottleneck=torch.tensor([True, False]))
    assert torch.equal(mixed.logits[1], expected.logits[1])
    assert torch.equal(mixed.latents, expected.latents)
    assert not torch.allclose(mixed.logits[0, -1], expected.logits[0, -1], atol=1e-3)
    assert torch.equal(model(**inputs, latent_bottleneck=False).logits, expected.logits)


@torch.no_grad()
def test_one_pass_over_given_latents_equals_the_rollout(model, inputs):
    rolled_out = model(**inputs, latent_bottleneck=True)
    forced = model(**inputs, forced_latents=rolled_out.latents, latent_bottleneck=True)
    assert_close(answer_part(forced), answer_part(rolled_out), **CLOSE)
    assert_close(forced.latents, rolled_out.latents, **CLOSE)


@torch.no_grad()
def test_answer_comes_from_what_was_fed_and_not_from_what_was_thought(model, inputs, latents):
    fed = model(**inputs, latent_intervention=lambda step, latent: latents[:, step], latent_bottleneck=True)
    given = model(**inputs, forced_latents=latents, latent_bottleneck=True)
    assert_close(answer_part(fed), answer_part(given), **CLOSE)


@torch.no_grad()
def test_right_padding_equals_left_padding(model, inputs):
    shift = int((inputs["attention_mask"][1] == 0).sum())
    rolled = {
        name: torch.stack([value[0], value[1].roll(-shift)])
        for name, value in inputs.items()
        if value.shape == inputs["input_ids"].shape
    }
    left = model(**inputs, latent_bottleneck=True)
    right = model(**{**inputs, **rolled}, latent_bottleneck=True)
    assert_close(right.logits[1, -shift - NUM_AFTER : -shift], answer_part(left)[1], **CLOSE)


@pytest.mark.parametrize(
    "gradient", [RolloutGradient(), RolloutGradient(truncate_steps=2), RolloutGradient(jacobi_sweeps=3)]
)
def test_every_way_back_through_the_rollout_answers_the_same(gradient):
    model, inputs = tiny_storm("qwen3_vl"), ask("qwen3_vl", suffix=SUFFIX)
    output = model(**inputs, rollout_gradient=gradient, latent_bottleneck=True)
    with torch.no_grad():
        assert_close(output.logits, model(**inputs, latent_bottleneck=True).logits, **CLOSE)
    answer_part(output).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.model.latent_projector.parameters())


# --- generation --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_generated_answer_equals_one_that_is_computed_anew_for_each_token(model, kind):
    prompt = ask(kind)
    cached = model.generate(**prompt, latent_bottleneck=True, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    sequence = {**prompt}
    for _ in range(4):
        logits = model(**sequence, latent_bottleneck=True).logits[:, -1]
        logits[:, [EOS, LATENT, LATENT_START, LATENT_END]] = -torch.inf  # as `min_new_tokens` and `generate` have it
        token = logits.argmax(dim=-1, keepdim=True)
        sequence["input_ids"] = torch.cat([sequence["input_ids"], token], dim=1)
        for name in ("attention_mask", "mm_token_type_ids", "clip_token_mask"):
            if name in sequence:
                filling = torch.full_like(token, int(name == "attention_mask")).to(sequence[name].dtype)
                sequence[name] = torch.cat([sequence[name], filling], dim=1)
    assert torch.equal(cached, sequence["input_ids"])


@torch.no_grad()
def test_generated_answer_knows_nothing_of_the_clip_but_the_latents(model, kind, latents):
    def said(seed):
        prompt = {
            **ask(kind),
            **{k: v for k, v in tiny_inputs(kind, seed=seed).items() if "pixel_values" in k},
        }
        return model.generate(
            **prompt,
            latent_bottleneck=True,
            latent_intervention=lambda step, latent: latents[:, step],
            max_new_tokens=4,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        ).logits

    for one, other in zip(said(0), said(7), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_generation_returns_the_callers_prompt_and_the_latents_of_the_thought(model, kind):
    prompt = ask(kind)
    arguments = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "output_latents": True}
    output = model.generate(**prompt, latent_bottleneck=True, **arguments)
    assert torch.equal(output.sequences[:, :-3], prompt["input_ids"])
    assert_close(output.latents, model(**prompt).latents, **CLOSE)


@torch.no_grad()
def test_beams_of_a_prompt_share_its_latents(model, kind):
    prompt = ask(kind)
    arguments = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "num_beams": 2}
    output = model.generate(**prompt, **arguments, num_return_sequences=2, latent_bottleneck=True, output_latents=True)
    expected = model(**prompt).latents.repeat_interleave(2, dim=0)
    assert_close(output.latents, expected, **CLOSE)
    for row in range(2):  # the best of two beams does not depend on what else is in the batch
        ids = without_clip(prompt["input_ids"][row])[None]
        given = expected[2 * row : 2 * row + 1]
        alone = model.generate(
            ids, **arguments, latent_intervention=lambda k, z, given=given: given[:, k].expand_as(z)
        )
        assert torch.equal(output.sequences[2 * row, -3:], alone[0, -3:])


@torch.no_grad()
def test_mask_is_inferred_where_none_is_given(model, kind):
    prompt = ask(kind)
    arguments = {"latent_bottleneck": True, "max_new_tokens": 3, "do_sample": False, "output_latents": True}
    expected = model.generate(**prompt, **arguments)
    mask = prompt.pop("attention_mask")
    assert not mask.all()
    inferred = model.generate(**prompt, **arguments)
    assert torch.equal(inferred.sequences, expected.sequences)
    assert_close(inferred.latents, expected.latents, **CLOSE)


@torch.no_grad()
def test_pieces_and_positions_of_the_whole_prompt_do_not_reach_the_short_one(model, kind):
    prompt = ask(kind)
    arguments = {"latent_bottleneck": True, "max_new_tokens": 3, "do_sample": False}
    expected = model.generate(**prompt, **arguments)
    known = {name: value for name, value in prompt.items() if name != "input_ids"}
    positions = model._prepare_position_ids_for_generation(prompt["input_ids"], known)
    assert torch.equal(model.generate(**prompt, **arguments, position_ids=positions), expected)
    assert torch.equal(model.generate(**prompt, **arguments, prefill_chunk_size=3), expected)


@torch.no_grad()
def test_false_is_as_if_it_were_left_out(model, inputs):
    output = model(**inputs, latent_bottleneck=False, use_cache=True)
    assert output.cache.get_seq_length() == inputs["input_ids"].shape[1]


# --- ids alone ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_ids_alone_are_enough_for_a_clip_in_one_piece_and_refused_for_one_in_several(model, kind, inputs, latents):
    arguments = {"forced_latents": latents, "latent_bottleneck": True}
    ids_alone = {name: value for name, value in inputs.items() if name != "clip_token_mask"}
    if kind not in ("qwen3_vl", "qwen3_5"):
        assert torch.equal(model(**ids_alone, **arguments).logits, model(**inputs, **arguments).logits)
        return
    with pytest.raises(ConfigurationError, match=r"in one piece, got \[2, 2\] pieces .* Pass `clip_token_mask`"):
        model(**ids_alone, **arguments)
    with pytest.raises(ConfigurationError, match="Pass `clip_token_mask`"):
        model.generate(**ids_alone, latent_bottleneck=True, max_new_tokens=1)


SINGLE_PATCHES = {
    "cached features": {"video_grid_thw": torch.tensor([[2, 4, 4], [1, 4, 4]])},
    "pixels": {"pixel_values": torch.zeros(2, 1, 3, 32, 32)},
}


@pytest.mark.parametrize("given", SINGLE_PATCHES.values(), ids=SINGLE_PATCHES)
def test_clip_of_one_temporal_patch_is_refused_without_its_mask(given):
    """On Qwen3-VL its time stands before it, and on Qwen2.5-VL nothing; the ids look alike."""
    with pytest.raises(ConfigurationError, match="one temporal patch.* Pass `clip_token_mask`"):
        refuse_single_patch(given, None)
    refuse_single_patch(given, torch.zeros(2, 8, dtype=torch.bool))
    refuse_single_patch({"image_grid_thw": torch.tensor([[1, 4, 4]])}, None)


# --- what cannot have it -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_cache_is_refused(inputs):
    model, inputs = tiny_storm("qwen3_vl"), tiny_inputs("qwen3_vl")
    cache = DynamicCache(config=model.config.get_text_config())
    with pytest.raises(ConfigurationError, match="Leave `cache` out"):
        model(**inputs, cache=cache, latent_bottleneck=True)
    with pytest.raises(ConfigurationError, match="Leave `cache` out"):
        model.generate(**inputs, cache=cache, latent_bottleneck=True)


@torch.no_grad()
def test_prompt_without_latents_is_refused():
    model = tiny_storm("qwen3_vl")
    with pytest.raises(LatentError, match="`latent_bottleneck`: Expected `input_ids` with a latent block"):
        model(input_ids=torch.tensor([[5, 6, 7]]), latent_bottleneck=True)
    with pytest.raises(LatentError, match="got none"):
        model.generate(**tiny_inputs("qwen3_vl"), num_latents=0, latent_bottleneck=True, max_new_tokens=1)


@pytest.mark.parametrize("given", [torch.tensor([True]), torch.ones(2, 1, dtype=torch.bool)])
def test_other_than_one_value_for_each_row_is_refused(given):
    with pytest.raises(ConfigurationError, match="for each of 2 rows"):
        tiny_storm("qwen3_vl")(**tiny_inputs("qwen3_vl"), latent_bottleneck=given)
