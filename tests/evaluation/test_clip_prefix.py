"""Prompts that go on from a reading of their clip are answered as those that are read whole."""

import pytest
import torch
from tests.reference import row_of
from tests.tiny import GRID_KINDS, VISION_TOKENS, tiny_config, tiny_inputs, tiny_storm
from torch.testing import assert_close
from transformers import set_seed
from transformers.cache_utils import DynamicSlidingWindowLayer

from storm_hf.evaluation.clip_prefix import ClipPrefixes
from storm_hf.model.thought_adapter_storm import ADAPTER_NAME, thought_layers


ANSWER = {
    **{"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "suppress_tokens": VISION_TOKENS},
    **{"return_dict_in_generate": True, "output_logits": True, "output_latents": True},
}
CLOSE = {"rtol": 0, "atol": 1e-5}
LENGTHS = (5, 3, 5, 9)


def about_one_clip(kind, lengths=LENGTHS, num_latents=4, seed=0):
    """Prompts of one row each: the same clip, and questions of the given lengths."""
    batch = tiny_inputs(kind, lengths, num_latents=num_latents, seed=seed)
    rows = [row_of(batch, row) for row in range(len(lengths))]
    clip = {name: value for name, value in rows[0].items() if not is_per_token(name)}
    return [{**row, **clip} for row in rows]


def is_per_token(name):
    return name in ("input_ids", "attention_mask", "mm_token_type_ids")


def answer(model, inputs):
    """The new tokens (B, n), their logits (B, n, V) and the latents."""
    output = model.generate(**inputs, **ANSWER)
    tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
    return tokens, torch.stack(output.logits, dim=1), output.latents


def assert_same(found, expected):
    """The same tokens; logits and latents to 1e-5."""
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1], **CLOSE)
    if expected[2] is not None:
        assert_close(found[2], expected[2], **CLOSE)


def batched(model, prefixes, prompts, batch_size=8):
    """Answers to prompts in the groups in which they go together, in their order."""
    found = {}
    for places in prefixes.batches(prompts, batch_size):
        group = answer(model, prefixes.resume([prompts[place] for place in places]))
        for row, place in enumerate(places):
            found[place] = [None if part is None else part[row : row + 1] for part in group]
    return [found[place] for place in range(len(prompts))]


@pytest.fixture(params=[4, 0], ids=["thinking", "direct"])
def num_latents(request):
    return request.param


def test_each_question_is_answered_as_if_asked_alone(kind, storm, num_latents):
    prefixes = ClipPrefixes(storm)
    for prompt in about_one_clip(kind, num_latents=num_latents):
        assert_same(answer(storm, prefixes.resume([prompt])), answer(storm, prompt))
    assert (prefixes.num_read, prefixes.num_reused) == (1, len(LENGTHS) - 1)


def test_questions_of_unequal_length_are_answered_together_as_alone(kind, storm, num_latents):
    prompts = about_one_clip(kind, num_latents=num_latents)
    prefixes = ClipPrefixes(storm)
    for found, prompt in zip(batched(storm, prefixes, prompts), prompts, strict=True):
        assert_same(found, answer(storm, prompt))


def test_recurrent_states_go_on_in_batches_of_one_length_and_attention_in_one_batch(kind, storm):
    groups = ClipPrefixes(storm).batches(about_one_clip(kind), 8)
    assert groups == ([[0, 2], [1], [3]] if kind == "qwen3_5" else [[0, 1, 2, 3]])


def test_groups_are_no_larger_than_the_batch_size():
    storm = tiny_storm("smolvlm")
    assert ClipPrefixes(storm).batches(about_one_clip("smolvlm"), 3) == [[0, 1, 2], [3]]


def test_what_was_read_of_a_clip_is_not_changed_by_questions_about_it(kind, storm):
    first, *others = about_one_clip(kind)
    prefixes = ClipPrefixes(storm)
    before = answer(storm, prefixes.resume([first]))
    batched(storm, prefixes, others)
    after = answer(storm, prefixes.resume([first]))
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))


def test_prompts_about_other_clips_in_between_move_no_position(kind, storm):
    """Qwen's model keeps the offset of positions of the last prompt."""
    prompt, other = about_one_clip(kind)[0], tiny_inputs(kind, (7,), seed=3)
    prefixes = ClipPrefixes(storm, max_clips=2)
    expected = answer(storm, prompt)
    prefixes.resume([prompt])
    resumed = prefixes.resume([prompt])
    storm.generate(**{name: value for name, value in other.items() if is_per_token(name)}, max_new_tokens=2)
    assert_same(answer(storm, resumed), expected)
    assert_same(answer(storm, prefixes.resume([other])), answer(storm, other))
    assert_same(answer(storm, prefixes.resume([prompt])), expected)
    assert (prefixes.num_read, len(prefixes)) == (2, 2)


def test_clip_with_other_pixels_is_another_clip(kind, storm):
    prompt, other = about_one_clip(kind)[0], about_one_clip(kind, seed=1)[0]
    other["input_ids"] = prompt["input_ids"]
    prefixes = ClipPrefixes(storm, max_clips=2)
    found = [answer(storm, prefixes.resume([each])) for each in (prompt, other)]
    assert_same(found[1], answer(storm, other))
    assert prefixes.num_read == 2
    assert not torch.equal(found[0][1], found[1][1])
    assert prefixes.batches([prompt, other], 8) == [[0], [1]]


def test_text_before_the_clip_that_differs_is_not_shared(kind, storm):
    prompt = about_one_clip(kind)[0]
    other = {name: _with_first(value) if is_per_token(name) else value for name, value in prompt.items()}
    prefixes = ClipPrefixes(storm, max_clips=2)
    for each in (prompt, other):
        assert_same(answer(storm, prefixes.resume([each])), answer(storm, each))
    assert prefixes.num_read == 2


def _with_first(values):
    """One more column of text in front."""
    first = {torch.int64: torch.where(values[:, :1] == 1, 1, 60), torch.int32: values[:, :1] * 0}[values.dtype]
    return torch.cat([first, values], dim=1)


def test_intervention_is_fed_as_to_the_whole_prompt(kind, storm):
    prompts = about_one_clip(kind, (5, 5))
    prefixes = ClipPrefixes(storm)
    for prompt in prompts:
        fed = {"latent_intervention": lambda step, latent: latent.flip(-1) * step}
        found = storm.generate(**prefixes.resume([prompt]), **fed, **ANSWER)
        expected = storm.generate(**prompt, **fed, **ANSWER)
        assert torch.equal(found.sequences, expected.sequences)
        assert_close(torch.stack(found.logits), torch.stack(expected.logits), **CLOSE)


def test_thought_adapter_acts_on_the_thought_and_not_on_the_clip(kind):
    model = tiny_storm(kind)
    model.add_thought_adapter(r=4, lora_alpha=8)
    prompts = about_one_clip(kind)
    plain = ClipPrefixes(model)
    plain.resume(prompts[:1])
    set_seed(1)
    for layer in thought_layers(model.get_decoder()):
        torch.nn.init.normal_(layer.lora_B[ADAPTER_NAME].weight, std=0.1)
    for found, prompt in zip(
        batched(model, plain, prompts), prompts, strict=True
    ):  # read before the adapter was trained
        assert_same(found, answer(model, prompt))


def test_sliding_window_goes_on_in_batches_of_one_length():
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    model = tiny_storm("internvl", vlm_config=tiny_config("internvl", **window))
    prompts = about_one_clip("internvl")
    prefixes = ClipPrefixes(model)
    for found, prompt in zip(batched(model, prefixes, prompts), prompts, strict=True):
        assert_same(found, answer(model, prompt))
    assert DynamicSlidingWindowLayer in {type(layer) for layer in prefixes.resume(prompts[:1])["cache"].layers}
    assert prefixes.batches(prompts, 8) == [[0, 2], [1], [3]]


def test_encoded_video_is_a_clip_too(grid_kind_storm):
    kind, model = grid_kind_storm
    prompts = about_one_clip(kind)
    features = model.encode_video(
        pixel_values_videos=prompts[0]["pixel_values_videos"], video_grid_thw=prompts[0]["video_grid_thw"]
    )
    prefixes = ClipPrefixes(model)
    for prompt in prompts:
        pixels = prompt.pop("pixel_values_videos")
        found = answer(model, prefixes.resume([{**prompt, **features}]))
        assert_same(found, answer(model, {**prompt, "pixel_values_videos": pixels}))
    assert prefixes.num_read == 1


@pytest.fixture(scope="module", params=GRID_KINDS)
def grid_kind_storm(request):
    return request.param, tiny_storm(request.param)


@pytest.mark.parametrize("reason", ["no clip", "step", "static cache", "padding"])
def test_prompt_that_cannot_go_on_from_its_clip_is_read_whole(reason):
    model = tiny_storm("qwen2_5_vl", latent_attention="step" if reason == "step" else "full")
    prompt = about_one_clip("qwen2_5_vl")[0]
    if reason == "no clip":
        prompt = {name: value[:, 12:] for name, value in prompt.items() if is_per_token(name)}
    elif reason == "static cache":
        model.generation_config.cache_implementation = "static"
    elif reason == "padding":
        prompt["attention_mask"][0, 0] = 0
    prefixes = ClipPrefixes(model)
    resumed = prefixes.resume([prompt])
    assert resumed.keys() == prompt.keys()
    assert all(torch.equal(resumed[name], prompt[name]) for name in prompt)
    assert prefixes.batches([prompt, prompt], 8) == [[0], [1]]
    assert len(prefixes) == 0


def test_clips_used_longest_ago_are_dropped_first():
    model = tiny_storm("internvl")
    prefixes = ClipPrefixes(model, max_clips=2)
    clips = [about_one_clip("internvl", seed=seed)[:1] for seed in range(3)]
    for number in (0, 1, 0, 2, 0):
        prefixes.resume(clips[number])
    assert (prefixes.num_read, prefixes.num_reused, len(prefixes)) == (3, 2, 2)
    prefixes.resume(clips[1])
    assert prefixes.num_read == 4


def test_kept_bytes_stay_below_their_bound_and_count_all_that_is_held():
    model = tiny_storm("internvl")
    clips = [about_one_clip("internvl", seed=seed)[:1] for seed in range(5)]
    one = ClipPrefixes(model)
    one.resume(clips[0])
    length = one.length(clips[0][0])
    pixels = clips[0][0]["pixel_values"].numel() * 4
    assert (
        one.num_bytes == length * 8 + pixels + length * 2 * 2 * 2 * 8 * 4
    )  # ids, pixels, keys and values of two layers
    prefixes = ClipPrefixes(model, max_clips=None, max_bytes=3 * one.num_bytes)
    for clip in clips:
        prefixes.resume(clip)
    assert (len(prefixes), prefixes.num_bytes) == (3, 3 * one.num_bytes)


def test_states_of_linear_attention_are_counted():
    model = tiny_storm("qwen3_5")
    prefixes = ClipPrefixes(model)
    prompt = about_one_clip("qwen3_5")[0]
    cache = prefixes.resume([prompt])["cache"]
    linear, full = cache.layers
    states = [linear.conv_states[0], linear.recurrent_states[0], full.keys, full.values]
    pixels = [
        prompt["input_ids"][:, : prefixes.length(prompt)],
        prompt["pixel_values_videos"],
        prompt["video_grid_thw"],
    ]
    assert prefixes.num_bytes == sum(tensor.nbytes for tensor in (*states, *pixels))


def test_window_holds_no_tokens_outside_of_it():
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    model = tiny_storm("internvl", vlm_config=tiny_config("internvl", **window))
    prefixes = ClipPrefixes(model)
    layers = prefixes.resume(about_one_clip("internvl")[:1])["cache"].layers
    assert {layer.keys.shape[-2] for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)} == {3}
    assert all(layer.keys.untyped_storage().nbytes() == layer.keys.nbytes for layer in layers)


def test_clip_that_is_too_large_to_keep_leaves_the_others():
    model = tiny_storm("internvl")
    small, large = about_one_clip("internvl")[0], about_one_clip("internvl", seed=1)[0]
    large = {name: _with_first(value) if is_per_token(name) else value for name, value in large.items()}
    one = ClipPrefixes(model)
    one.read(small)
    prefixes = ClipPrefixes(model, max_clips=None, max_bytes=one.num_bytes)
    for prompt in (small, large, small):
        prefixes.read(prompt)
    assert (prefixes.num_read, prefixes.num_reused, len(prefixes)) == (2, 1, 1)


def test_clip_that_is_too_large_to_keep_is_used_and_dropped():
    model = tiny_storm("internvl")
    prompts = about_one_clip("internvl")
    prefixes = ClipPrefixes(model, max_clips=4, max_bytes=100)
    for _ in range(2):
        for found, prompt in zip(batched(model, prefixes, prompts), prompts, strict=True):
            assert_same(found, answer(model, prompt))
    assert (prefixes.num_read, len(prefixes), prefixes.num_bytes) == (2, 0, 0)


@pytest.mark.parametrize("bound", [{"max_clips": 0}, {"max_clips": None, "max_bytes": 0}], ids=str)
def test_nothing_is_kept_and_nothing_copied_where_it_is_switched_off(bound):
    model = tiny_storm("internvl")
    prompt = about_one_clip("internvl")[0]
    prefixes = ClipPrefixes(model, **bound)
    resumed = prefixes.resume([prompt])
    assert resumed.keys() == prompt.keys()
    assert (prefixes.num_read, len(prefixes)) == (0, 0)
