"""Additions of `generate` to stock generation: the length, the record and the replacement of latents, and refusals."""

import pytest
import torch
from tests.reference import PER_TOKEN, pad_on_the_right
from tests.tiny import EOS, LATENT, LATENT_END, LATENT_START, VISION_TOKENS, tiny_inputs, tiny_storm
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from storm_hf.errors import ConfigurationError, LatentError
from storm_hf.model.generation_storm import set_num_latents


GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "suppress_tokens": VISION_TOKENS}


def answers(model, inputs, **options):
    prompt = inputs["input_ids"]
    sequences = model.generate(**inputs, **{**GREEDY, **options})
    assert torch.equal(sequences[:, : prompt.shape[1]], prompt)
    return sequences[:, prompt.shape[1] :]


@pytest.mark.parametrize("num_rendered", [4, 2, 0], ids="rendered {}".format)
@pytest.mark.parametrize("num_latents", [0, 1, 4, 7])
def test_length_given_to_generate_equals_the_length_rendered(qwen3_vl, num_rendered, num_latents):
    expected = answers(qwen3_vl, tiny_inputs("qwen3_vl", num_latents=num_latents))
    inputs = tiny_inputs("qwen3_vl", num_latents=num_rendered)
    assert torch.equal(answers(qwen3_vl, inputs, num_latents=num_latents), expected)


def test_length_is_set_on_every_backbone(kind, storm):
    expected = answers(storm, tiny_inputs(kind, num_latents=2))
    assert torch.equal(answers(storm, tiny_inputs(kind, num_latents=4), num_latents=2), expected)


@pytest.fixture(scope="module")
def qwen3_vl():
    return tiny_storm("qwen3_vl")


@pytest.mark.parametrize("num_latents", [0, 2, 6])
def test_positions_that_are_given_follow_the_length(kind, storm, num_latents):
    inputs = tiny_inputs(kind, num_latents=4)
    known = {name: value for name, value in inputs.items() if name != "input_ids"}
    positions = storm._prepare_position_ids_for_generation(inputs["input_ids"], known)
    expected = answers(storm, inputs, num_latents=num_latents)
    assert torch.equal(answers(storm, {**inputs, "position_ids": positions}, num_latents=num_latents), expected)


def test_per_token_inputs_are_edited_together(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl", num_latents=4)
    edited = set_num_latents(inputs, 2, qwen3_vl.config)
    expected = tiny_inputs("qwen3_vl", num_latents=2)
    assert all(torch.equal(edited[name], expected[name]) for name in PER_TOKEN if name in expected)
    assert inputs["input_ids"].shape[1] == edited["input_ids"].shape[1] + 2  # the caller's own are left alone


def test_lengths_count_from_the_callers_prompt(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl", num_latents=0)
    length = inputs["input_ids"].shape[1]
    options = {"do_sample": False, "suppress_tokens": VISION_TOKENS}
    longest = qwen3_vl.generate(**inputs, num_latents=4, max_length=length + 3, eos_token_id=None, **options)
    assert longest.shape[1] == length + 3
    some_eos = answers(qwen3_vl, inputs, num_latents=4)[0, 0].item()
    options["eos_token_id"] = some_eos
    shortest = qwen3_vl.generate(**inputs, num_latents=4, max_length=length + 5, min_length=length + 3, **options)
    assert shortest.shape[1] >= length + 3


def test_sequences_start_with_the_callers_prompt_in_a_full_output_too(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl", num_latents=4)
    output = qwen3_vl.generate(
        **inputs,
        **{**GREEDY, "do_sample": True},
        num_return_sequences=2,
        num_latents=2,
        output_latents=True,
        return_dict_in_generate=True,
    )
    prompts = inputs["input_ids"].repeat_interleave(2, dim=0)
    assert torch.equal(output.sequences[:, : prompts.shape[1]], prompts)
    assert output.sequences.shape[1] == prompts.shape[1] + 4
    assert output.latents.shape == (4, 2, 32)


def test_prompt_may_be_positional(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl")
    expected = qwen3_vl.generate(**inputs, **GREEDY)
    prompt = inputs.pop("input_ids")
    assert torch.equal(qwen3_vl.generate(prompt, **inputs, **GREEDY), expected)


def test_generation_config_object_is_taken(qwen3_vl):
    config = GenerationConfig(max_new_tokens=4, do_sample=False, suppress_tokens=list(VISION_TOKENS), pad_token_id=0)
    inputs = tiny_inputs("qwen3_vl")
    assert torch.equal(qwen3_vl.generate(**inputs, generation_config=config), qwen3_vl.generate(**inputs, **GREEDY))


def test_without_latents_generate_is_that_of_the_backbone(kind, storm):
    inputs = tiny_inputs(kind, num_latents=0)
    latent_ids = list(storm.config.latent_block_ids)
    options = {**GREEDY, "suppress_tokens": [*VISION_TOKENS, *latent_ids], "pad_token_id": 0}
    expected = storm.backbone.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
    output = storm.generate(**inputs, **GREEDY, return_dict_in_generate=True, output_logits=True, output_latents=True)
    assert torch.equal(output.sequences, expected.sequences)
    assert all(torch.equal(*pair) for pair in zip(output.logits, expected.logits, strict=True))
    assert output.latents is None


def test_rows_end_on_their_own(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl")
    first_token = answers(qwen3_vl, inputs)[0, 0].item()
    tokens = answers(qwen3_vl, inputs, eos_token_id=first_token)
    assert tokens[0].tolist() == [first_token] + [0] * (tokens.shape[1] - 1)


def test_tokens_that_the_caller_suppresses_stay_suppressed(qwen3_vl):
    """Our processor must not displace the one that `suppress_tokens` makes."""
    inputs = tiny_inputs("qwen3_vl")
    favourite = answers(qwen3_vl, inputs)[0, 0].item()
    tokens = answers(qwen3_vl, inputs, suppress_tokens=[*VISION_TOKENS, favourite])
    assert (tokens != favourite).all()


def test_intervention_and_record_work_together(qwen3_vl):
    """The record keeps what the model made of each step, also where something else was fed."""
    inputs = tiny_inputs("qwen3_vl")
    options = {**GREEDY, "output_latents": True, "return_dict_in_generate": True}
    plain = qwen3_vl.generate(**inputs, **options).latents
    zeroed = qwen3_vl.generate(
        **inputs, **options, latent_intervention=lambda step, latent: torch.zeros_like(latent)
    ).latents
    assert torch.equal(zeroed[:, 0], plain[:, 0])
    assert (zeroed[:, 1:] - plain[:, 1:]).abs().max() > 1e-3


class Collector(BaseStreamer):
    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        pass


def test_streamed_answer_holds_no_latent_token_when_the_length_is_set(qwen3_vl):
    inputs, streamer = tiny_inputs("qwen3_vl", prompt_lengths=(5,)), Collector()
    tokens = answers(qwen3_vl, inputs, num_latents=2, streamer=streamer)[0].tolist()
    assert streamer.tokens[-len(tokens) :] == tokens
    assert streamer.tokens[-len(tokens) - 4 : -len(tokens)] == [LATENT_START, LATENT, LATENT, LATENT_END]


def test_intervention_that_writes_in_place_leaves_the_recorded_latents(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl")
    options = {"max_new_tokens": 2, "output_latents": True}
    zeroed = qwen3_vl.generate(**inputs, **options, latent_intervention=lambda _, latent: latent.zero_())
    replaced = qwen3_vl.generate(**inputs, **options, latent_intervention=lambda _, latent: torch.zeros_like(latent))
    assert torch.equal(zeroed["latents"], replaced["latents"])
    assert zeroed["latents"].abs().sum() > 0


def test_prompt_without_latents_may_be_given_as_embeddings(storm):
    ids = torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    embedded = storm.generate(inputs_embeds=storm.get_input_embeddings()(ids), attention_mask=mask, **GREEDY)
    assert torch.equal(embedded, storm.generate(ids, attention_mask=mask, **GREEDY)[:, 6:])


def test_prompt_with_latents_is_refused_as_embeddings(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl")
    embedded = qwen3_vl.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(LatentError, match="Pass `input_ids`"):
        qwen3_vl.generate(inputs_embeds=embedded, attention_mask=inputs["attention_mask"], **GREEDY)


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_latents", [-1, 65, 2.0, [1, 2]], ids=str)
def test_length_out_of_bounds_is_refused(qwen3_vl, num_latents):
    with pytest.raises(LatentError, match="between 0 and max_num_latents=64"):
        qwen3_vl.generate(**tiny_inputs("qwen3_vl"), num_latents=num_latents)


def test_length_of_a_prompt_padded_on_the_right_is_refused(qwen3_vl):
    with pytest.raises(LatentError, match="padding_side = 'left'"):
        qwen3_vl.generate(**pad_on_the_right(tiny_inputs("qwen3_vl")), num_latents=2)


@pytest.mark.parametrize(
    ("tail", "num_latents"),
    [((LATENT_END, 7), 4), ((), 4), ((LATENT, LATENT_END, LATENT_END), 4), ((LATENT_START, LATENT, LATENT_END), 1)],
    ids=["text after the block", "no end", "two ends", "two blocks"],
)
def test_length_of_a_broken_or_earlier_block_is_refused(qwen3_vl, tail, num_latents):
    with pytest.raises(LatentError, match="one whole latent block"):
        qwen3_vl.generate(**tiny_inputs("qwen3_vl", num_latents=num_latents, suffix=tail), num_latents=2)


def test_length_of_rows_with_different_blocks_is_refused(qwen3_vl):
    rows = torch.tensor([[5, 6, LATENT_START, LATENT, LATENT_END], [5, LATENT_START, LATENT, LATENT, LATENT_END]])
    with pytest.raises(LatentError, match="one whole latent block"):
        qwen3_vl.generate(input_ids=rows, num_latents=2)


def test_length_of_a_prompt_without_tokens_is_refused(qwen3_vl):
    embeds = torch.zeros(1, 3, 32)
    with pytest.raises(LatentError, match="got no input_ids"):
        qwen3_vl.generate(inputs_embeds=embeds, num_latents=2)


def test_length_after_a_cache_is_refused(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl")
    cache = qwen3_vl.generate(**inputs, **GREEDY, return_dict_in_generate=True).cache
    with pytest.raises(LatentError, match="got cache"):
        qwen3_vl.generate(**inputs, cache=cache, num_latents=2)


def test_length_of_a_model_without_latent_tokens_is_refused():
    model = tiny_storm("qwen3_vl", latent_token_id=None, latent_start_token_id=None, latent_end_token_id=None)
    with pytest.raises(LatentError, match="from_backbone"):
        model.generate(**tiny_inputs("qwen3_vl", num_latents=0), num_latents=2)


def test_continuous_batching_is_refused_with_the_reason(qwen3_vl):
    with pytest.raises(ConfigurationError, match="Use `generate` with a left-padded batch"):
        qwen3_vl.generate_batch([[5, 6, 7]])


def test_rows_padded_on_the_right_are_refused_in_front_of_a_cache(qwen3_vl):
    with pytest.raises(LatentError, match="Pad the prompts on the left"):
        qwen3_vl.generate(**pad_on_the_right(tiny_inputs("qwen3_vl")), max_new_tokens=1, eos_token_id=EOS)


def test_guidance_reads_a_second_prompt_with_latents_of_its_own():
    model, inputs = tiny_storm("llava_onevision"), tiny_inputs("llava_onevision", prompt_lengths=(5, 5))
    other = inputs["input_ids"][:, -8:]  # the end of the question, and its latent block
    options = {**GREEDY, "max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
    scores = model.generate(**inputs, **options, guidance_scale=2.0, negative_prompt_ids=other).scores[0]
    with torch.no_grad():
        own, without = (model(**each).logits[:, -1].log_softmax(-1) for each in (inputs, {"input_ids": other}))
    is_possible = scores.isfinite()
    assert torch.allclose(scores[is_possible], (2 * own - without)[is_possible], atol=1e-5)


@pytest.mark.parametrize("by", ["argument", "configuration"])
def test_guidance_is_refused_where_positions_have_several_axes(qwen3_vl, by):
    given = (
        {"guidance_scale": 2.0, "max_new_tokens": 1}
        if by == "argument"
        else {"generation_config": GenerationConfig(guidance_scale=2.0, max_new_tokens=1)}
    )
    with pytest.raises(ConfigurationError, match="got 2.0 with a Qwen3VLForConditionalGeneration, .* Leave it out"):
        qwen3_vl.generate(**tiny_inputs("qwen3_vl"), **given)


def test_guidance_of_one_is_none(qwen3_vl):
    inputs = tiny_inputs("qwen3_vl")
    assert torch.equal(answers(qwen3_vl, inputs, guidance_scale=1.0), answers(qwen3_vl, inputs))
