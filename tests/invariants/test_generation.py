"""Every way to generate gives the answer of the plainest one: no cache, the rollout recomputed for each token."""

import pytest
import torch
from tests.reference import append, continue_without_cache, row_of
from tests.tiny import GRID_KINDS, LATENT_END, VISION_TOKENS, tiny_inputs, tiny_storm
from torch.testing import assert_close
from transformers.generation.streamers import BaseStreamer

from storm_hf.model import StormForConditionalGeneration


NUM_TOKENS = 5
ANSWER = {"max_new_tokens": NUM_TOKENS, "eos_token_id": None, "suppress_tokens": VISION_TOKENS}
GREEDY = {**ANSWER, "do_sample": False}


class TokenCollector(BaseStreamer):
    """A streamer that keeps what it is given."""

    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens.append(value.flatten().tolist())

    def end(self):
        self.tokens.append("end")


@pytest.fixture(scope="module")
def inputs(kind):
    return tiny_inputs(kind)


@pytest.fixture(scope="module")
def answer(storm, inputs):
    """The greedy answer to both prompts, by the reference."""
    return torch.cat([continue_without_cache(storm, row_of(inputs, row), NUM_TOKENS) for row in range(2)])


def new_tokens(sequences, inputs):
    return sequences[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize(
    "options",
    [{}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True}, {"num_beams": 1}],
    ids=["dynamic cache", "no cache", "static cache", "one beam"],
)
def test_greedy_batch_equals_the_reference(storm, inputs, answer, options):
    sequences = storm.generate(**inputs, **GREEDY, **options)
    assert torch.equal(new_tokens(sequences, inputs), answer)


def test_greedy_row_alone_equals_the_reference(storm, inputs, answer):
    for row in range(2):
        alone = row_of(inputs, row)
        assert torch.equal(new_tokens(storm.generate(**alone, **GREEDY), alone)[0], answer[row])


def test_sampling_with_a_seed_equals_the_reference(storm, inputs):
    def pick(logits):
        return torch.multinomial((logits / 0.7).softmax(dim=-1), num_samples=1)[:, 0]

    torch.manual_seed(3)
    expected = continue_without_cache(storm, inputs, NUM_TOKENS, pick)
    torch.manual_seed(3)
    sequences = storm.generate(**inputs, **ANSWER, do_sample=True, temperature=0.7, top_k=0)
    assert torch.equal(new_tokens(sequences, inputs), expected)


def test_beams_with_a_cache_equal_beams_without(storm, inputs):
    options = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    cached, recomputed = storm.generate(**inputs, **options), storm.generate(**inputs, **options, use_cache=False)
    assert cached.shape == (4, inputs["input_ids"].shape[1] + NUM_TOKENS)
    assert torch.equal(cached, recomputed)


def test_score_of_the_best_beam_is_confirmed_by_one_forward_pass(storm, inputs):
    row = row_of(inputs, 0)
    output = storm.generate(
        **row, **GREEDY, num_beams=3, length_penalty=0.0, return_dict_in_generate=True, output_scores=True
    )
    tokens = new_tokens(output.sequences, row)
    with torch.no_grad():
        logits = storm(**append(row, tokens)).logits[0, -NUM_TOKENS - 1 : -1]
    log_probability = logits.log_softmax(dim=-1).gather(1, tokens.T).sum()
    assert_close(output.sequences_scores[0], log_probability, rtol=1e-4, atol=1e-4)


def test_streamer_sees_the_prompt_and_then_only_answer_tokens(storm, inputs, answer):
    row, streamer = row_of(inputs, 0), TokenCollector()
    storm.generate(**row, **GREEDY, streamer=streamer)
    assert streamer.tokens[0] == row["input_ids"][0].tolist()
    assert streamer.tokens[1:] == [[token] for token in answer[0].tolist()] + ["end"]


def test_generation_goes_on_from_the_returned_cache(storm, inputs, answer):
    first = storm.generate(**inputs, **{**GREEDY, "max_new_tokens": 2}, return_dict_in_generate=True)
    longer = append(inputs, new_tokens(first.sequences, inputs))
    kept = ("input_ids", "attention_mask", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
    rest = storm.generate(
        **{name: longer[name] for name in kept if name in longer},
        cache=first.cache,
        **{**GREEDY, "max_new_tokens": NUM_TOKENS - 2},
    )
    assert torch.equal(new_tokens(rest, inputs), answer)


def test_prompt_lookup_equals_the_reference(storm, inputs, answer):
    row = row_of(inputs, 0)
    if "linear_attention" in (
        getattr(storm.config.get_text_config(), "layer_types", None) or ()
    ):  # since transformers 5.24: drafts are taken back, which a recurrent state cannot be
        with pytest.raises(ValueError, match="Assisted decoding requires a cache that can be cropped"):
            storm.generate(**row, **GREEDY, prompt_lookup_num_tokens=2)
        return
    sequences = storm.generate(**row, **GREEDY, prompt_lookup_num_tokens=2)
    assert torch.equal(new_tokens(sequences, row)[0], answer[0])


@pytest.mark.parametrize("chunk_size", [2, 5, 64])
def test_chunked_prefill_of_encoded_videos_equals_the_reference(grid_kind_storm, chunk_size):
    kind, model = grid_kind_storm
    inputs = tiny_inputs(kind)
    expected = model.generate(**inputs, **GREEDY, output_latents=True, return_dict_in_generate=True)
    features = model.encode_video(
        pixel_values_videos=inputs.pop("pixel_values_videos"), video_grid_thw=inputs["video_grid_thw"]
    )
    output = model.generate(
        **inputs,
        **features,
        **GREEDY,
        prefill_chunk_size=chunk_size,
        output_latents=True,
        return_dict_in_generate=True,
    )
    assert torch.equal(output.sequences, expected.sequences)
    assert_close(output.latents, expected.latents, rtol=1e-4, atol=5e-6)


@pytest.fixture(scope="module", params=GRID_KINDS)
def grid_kind_storm(request) -> tuple[str, StormForConditionalGeneration]:
    return request.param, tiny_storm(request.param)


def test_second_call_is_not_changed_by_the_first(storm, inputs):
    first = storm.generate(**inputs, **GREEDY)
    storm.generate(**tiny_inputs(storm.config.vlm_config.model_type, (2, 9), seed=5), **GREEDY)
    assert torch.equal(storm.generate(**inputs, **GREEDY), first)


def test_identity_intervention_changes_nothing_to_the_last_bit(storm, inputs):
    options = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    plain = storm.generate(**inputs, **options)
    observed = storm.generate(**inputs, **options, latent_intervention=lambda step, latent: latent)
    assert torch.equal(observed.sequences, plain.sequences)
    assert all(torch.equal(*pair) for pair in zip(observed.logits, plain.logits, strict=True))


def test_zeroed_latents_change_the_logits_of_the_first_answer_token(storm, inputs):
    options = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    plain = storm.generate(**inputs, **options)
    zeroed = storm.generate(**inputs, **options, latent_intervention=lambda step, latent: torch.zeros_like(latent))
    assert (zeroed.logits[0] - plain.logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 3}],
    ids=["greedy", "beams", "samples"],
)
def test_returned_latents_are_those_of_forward(storm, inputs, options):
    with torch.no_grad():
        expected = storm(**inputs).latents
    output = storm.generate(**inputs, **{**GREEDY, **options}, return_dict_in_generate=True, output_latents=True)
    per_prompt = len(output.sequences) // 2
    assert output.latents.shape == (2 * per_prompt, 4, storm.config.hidden_size)
    assert_close(output.latents, expected.repeat_interleave(per_prompt, dim=0), rtol=1e-4, atol=5e-6)


def test_answer_costs_k_plus_one_passes_and_one_per_further_token(storm, inputs):
    lengths = []
    handle = storm.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        storm.generate(**inputs, **GREEDY)
    finally:
        handle.remove()
    num_prompt = int((inputs["input_ids"][0] == LATENT_END).nonzero()[0]) - 4
    assert lengths == [num_prompt, 1, 1, 1, 2] + [1] * (NUM_TOKENS - 1)


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}], ids=["greedy", "sampling", "beams"])
def test_latent_tokens_are_never_sampled_however_likely(kind, inputs, options):
    model = tiny_storm(kind)
    head = model.get_output_embeddings()
    model.set_output_embeddings(FavoursLatents(head, model.config.latent_block_ids))
    with torch.no_grad():
        assert model(**inputs).logits[:, -1].argmax(dim=-1).tolist() == [model.config.latent_start_token_id] * 2
    sequences = model.generate(**inputs, **{**GREEDY, **options})
    latent_ids = torch.tensor(model.config.latent_block_ids)
    assert not torch.isin(new_tokens(sequences, inputs), latent_ids).any()


class FavoursLatents(torch.nn.Module):
    """A head that wants nothing more than a latent token."""

    def __init__(self, head, token_ids):
        super().__init__()
        self.head, self.token_ids = head, token_ids
        self.weight = head.weight

    def forward(self, hidden_states):
        logits = self.head(hidden_states)
        logits[..., list(self.token_ids)] += 1e4 - torch.arange(3.0)
        return logits
