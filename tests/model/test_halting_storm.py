"""A thought that ends by itself: each row answers exactly as the same prompt with as many latents as it used."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.reference import append, continue_without_cache, row_of
from tests.tiny import KINDS, VISION_TOKENS, tiny_config, tiny_inputs, tiny_storm
from torch.testing import assert_close

from storm_hf.errors import ConfigurationError, LatentError
from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.model.generation_storm import set_num_latents
from storm_hf.model.halting_storm import halting_log_probabilities


NUM_TOKENS, BOUND = 4, 5
PROMPTS = (5, 3, 7, 4)
STOPS = (2, 4, 1, 6)  # of each row; the last one thinks for all steps
GREEDY = {
    "max_new_tokens": NUM_TOKENS,
    "eos_token_id": None,
    "suppress_tokens": VISION_TOKENS,
    "do_sample": False,
    "return_dict_in_generate": True,
}


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    """A model whose head was fitted to stop each row where `STOPS` says, or at the bound."""
    model = tiny_storm(request.param, num_latents=BOUND, halting_head=True)
    with torch.no_grad():
        states = model.model(**tiny_inputs(request.param, PROMPTS, BOUND), answer_every_step=True).step_states
        stops = torch.arange(1, BOUND + 1) >= torch.tensor(STOPS)[:, None]
        states, logits = states.flatten(0, 1).double(), torch.where(stops, 4.0, -8.0).flatten().double()
        centre = states.mean(dim=0)
        weight = torch.linalg.lstsq(states - centre, (logits - logits.mean())[:, None], driver="gelsd").solution[:, 0]
        model.model.halting_head.weight.copy_(weight)
        model.model.halting_head.bias.copy_(logits.mean() - centre @ weight)
    return model


@pytest.fixture(scope="module")
def inputs(model):
    return tiny_inputs(model.config.vlm_config.model_type, PROMPTS, BOUND)


@pytest.fixture(scope="module")
def halted(model, inputs):
    return model.generate(**inputs, **GREEDY, output_latents=True)


def new_tokens(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :]


def fixed(model, inputs, row, num_latents, **options):
    """The answer of one row alone to the same prompt with so many latents."""
    alone = set_num_latents(row_of(inputs, row), int(num_latents), model.config)
    return new_tokens(model.generate(**alone, **{**GREEDY, **options}, halting=False), alone)


def test_rows_stop_where_the_head_says_or_at_the_bound(halted):
    assert halted.num_latents_used.tolist() == [min(stop, BOUND) for stop in STOPS]


def test_each_row_answers_as_its_prompt_with_so_many_latents(model, inputs, halted):
    for row, num_latents in enumerate(halted.num_latents_used):
        alone = set_num_latents(row_of(inputs, row), int(num_latents), model.config)
        assert torch.equal(new_tokens(halted, inputs)[row], continue_without_cache(model, alone, NUM_TOKENS)[0])


def test_logits_of_each_row_are_those_of_its_prompt_with_so_many_latents(model, inputs):
    output = model.generate(**inputs, **GREEDY, output_logits=True)
    for row, num_latents in enumerate(output.num_latents_used):
        alone = set_num_latents(row_of(inputs, row), int(num_latents), model.config)
        expected = model.generate(**alone, **GREEDY, output_logits=True, halting=False)
        for logits, of_row in zip(output.logits, expected.logits, strict=True):
            assert_close(logits[row], of_row[0], rtol=1e-4, atol=1e-4)


def test_row_alone_stops_where_it_stops_in_the_batch(model, inputs, halted):
    for row in range(len(PROMPTS)):
        alone = row_of(inputs, row)
        output = model.generate(**alone, **GREEDY)
        assert output.num_latents_used.tolist() == [halted.num_latents_used[row]]
        assert torch.equal(new_tokens(output, alone)[0], new_tokens(halted, inputs)[row])


def test_more_padding_on_the_left_changes_nothing(model, inputs, halted):
    padded = {
        name: torch.nn.functional.pad(value, (3, 0)) if value.shape == inputs["input_ids"].shape else value
        for name, value in inputs.items()
    }
    output = model.generate(**padded, **GREEDY)
    assert torch.equal(output.num_latents_used, halted.num_latents_used)
    assert torch.equal(new_tokens(output, padded), new_tokens(halted, inputs))


def test_beams_of_each_row_are_those_of_its_prompt_with_so_many_latents(model, inputs, halted):
    options = {"num_beams": 3, "num_return_sequences": 2}
    output = model.generate(**inputs, **GREEDY, **options)
    assert torch.equal(output.num_latents_used, halted.num_latents_used.repeat_interleave(2))
    for row, num_latents in enumerate(halted.num_latents_used):
        expected = fixed(model, inputs, row, num_latents, **options)
        assert torch.equal(new_tokens(output, inputs)[2 * row : 2 * row + 2], expected)


def test_thinking_ends_with_the_last_row(model, inputs, halted):
    lengths = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        model.generate(**inputs, **GREEDY)
    finally:
        handle.remove()
    assert lengths[1:] == [1] * (int(halted.num_latents_used.max()) + NUM_TOKENS)


def test_latents_are_the_models_own_up_to_the_last_used(model, inputs, halted):
    with torch.no_grad():
        expected = model(**inputs).latents
    for row, num_latents in enumerate(halted.num_latents_used):
        assert_close(halted.latents[row, :num_latents], expected[row, :num_latents], rtol=1e-4, atol=5e-6)
        assert not halted.latents[row, num_latents:].any()


def test_sequences_begin_with_the_prompt_that_was_handed_in(inputs, halted):
    assert torch.equal(halted.sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


def test_max_length_counts_the_prompt_that_was_handed_in(model, inputs):
    lengths = {"max_new_tokens": None, "max_length": inputs["input_ids"].shape[1] + 2}
    assert new_tokens(model.generate(**inputs, **{**GREEDY, **lengths}), inputs).shape[1] == 2


def positions_of(model, inputs):
    """What the backbone would make itself."""
    known = {name: value for name, value in inputs.items() if name != "input_ids"}
    return model._prepare_position_ids_for_generation(inputs["input_ids"], known)


def test_positions_that_are_given_count_as_many_latents_as_were_used(model, inputs, halted):
    output = model.generate(**inputs, **GREEDY, position_ids=positions_of(model, inputs))
    assert torch.equal(output.num_latents_used, halted.num_latents_used)
    assert torch.equal(output.sequences, halted.sequences)


def test_intervention_acts_on_a_thought_that_halts(model, inputs):
    output = model.generate(**inputs, **GREEDY, latent_intervention=lambda step, latent: torch.zeros_like(latent))
    row, num_latents = 0, int(output.num_latents_used[0])
    expected = fixed(
        model, inputs, row, num_latents, latent_intervention=lambda step, latent: torch.zeros_like(latent)
    )
    assert torch.equal(new_tokens(output, inputs)[:1], expected)


def test_halting_off_is_the_model_without_a_head_to_the_last_bit(model, inputs):
    plain = tiny_storm(model.config.vlm_config.model_type, num_latents=BOUND)
    own = {name: value for name, value in model.state_dict().items() if "halting_head" not in name}
    plain.load_state_dict(own)
    options = {**GREEDY, "output_logits": True}
    expected, output = plain.generate(**inputs, **options), model.generate(**inputs, **options, halting=False)
    assert all(torch.equal(*pair) for pair in zip(output.logits, expected.logits, strict=True))


# --- losses ------------------------------------------------------------------------------------------------------------


def with_answers(model, inputs):
    """Answers of one and three tokens, padded on the right."""
    tokens = torch.tensor([[7, 8, 9], [10, 11, 12], [13, 14, 15], [16, 17, 18]])
    batch = append(inputs, tokens)
    batch["labels"] = torch.full_like(batch["input_ids"], -100)
    batch["labels"][:, -3:] = tokens
    batch["labels"][1, -2:] = -100
    batch["attention_mask"][1, -2:] = 0
    return batch


def test_losses_after_each_step_are_those_of_prompts_with_so_many_latents(model, inputs):
    batch = with_answers(model, inputs)
    with torch.no_grad():
        losses = model(**batch, answer_every_step=True).step_losses
        assert losses.shape == (len(PROMPTS), BOUND)
        for row in range(len(PROMPTS)):
            for num_latents in range(1, BOUND + 1):
                prompt = set_num_latents(row_of(inputs, row), num_latents, model.config)
                answer = batch["input_ids"][row : row + 1, -3:][:, : 1 if row == 1 else 3]
                alone = append(prompt, answer)
                labels = torch.full_like(alone["input_ids"], -100)
                labels[:, -answer.shape[1] :] = answer
                expected = model(**alone, labels=labels, num_items_in_batch=1).loss
                assert_close(losses[row, num_latents - 1], expected, rtol=1e-4, atol=1e-4)


def test_gradient_of_the_losses_is_that_of_prompts_with_so_many_latents(model, inputs):
    row, weights = 0, torch.tensor([0.1, 0.3, 0.2, 0.3, 0.1])
    batch = {name: value for name, value in row_of(with_answers(model, inputs), row).items()}
    parameters = [*model.model.latent_projector.parameters(), model.get_input_embeddings().weight]
    losses = model(**batch, answer_every_step=True).step_losses[0]
    found = torch.autograd.grad((weights * losses).sum(), parameters)
    total = 0
    for num_latents, weight in enumerate(weights, start=1):
        prompt = set_num_latents(row_of(inputs, row), num_latents, model.config)
        alone = append(prompt, batch["input_ids"][:, -3:])
        labels = torch.full_like(alone["input_ids"], -100)
        labels[:, -3:] = batch["input_ids"][:, -3:]
        total = total + weight * model(**alone, labels=labels, num_items_in_batch=1).loss
    for gradient, expected in zip(found, torch.autograd.grad(total, parameters), strict=True):
        assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_answers_after_every_step_leave_the_output_as_it_is(model, inputs):
    batch = with_answers(model, inputs)
    with torch.no_grad():
        plain, every = model(**batch), model(**batch, answer_every_step=True)
    assert torch.equal(every.loss, plain.loss)
    assert torch.equal(every.latents, plain.latents)


# --- the head ----------------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_definition_and_add_up_to_one():
    halting = torch.tensor([[0.2, 0.5, 0.9], [0.0, 1.0, 0.3]]).logit(eps=1e-6)
    found = halting_log_probabilities(halting).exp()
    assert_close(found, torch.tensor([[0.2, 0.4, 0.4], [0.0, 1.0, 0.0]]), atol=1e-4, rtol=1e-4)
    assert_close(found.sum(dim=1), torch.ones(2))


def test_new_head_goes_on_for_all_questions_alike():
    model = tiny_storm("qwen2_5_vl")
    before = model.state_dict().keys()
    model.add_halting_head()
    assert {name for name in model.state_dict() if name not in before} == {
        "model.halting_head.weight",
        "model.halting_head.bias",
    }
    with torch.no_grad():
        logits = model(**tiny_inputs("qwen2_5_vl"), answer_every_step=True).halting_logits
    assert_close(logits.sigmoid(), torch.full((2, 4), 0.1192), rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigurationError, match="without a halting head"):
        model.add_halting_head()


def test_head_is_saved_and_loaded(tmp_path):
    model = tiny_storm("qwen2_5_vl", halting_head=True, halting_threshold=0.25)
    torch.nn.init.normal_(model.model.halting_head.weight)
    model.save_pretrained(tmp_path)
    loaded = StormForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.halting_head.weight, model.model.halting_head.weight)
    assert loaded.config.halting_threshold == 0.25


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21.2 reads it
def test_adapter_of_all_linear_layers_leaves_the_head_alone():
    model = tiny_storm("qwen2_5_vl", halting_head=True)
    inputs = tiny_inputs("qwen2_5_vl")
    with torch.no_grad():
        before = model(**inputs, answer_every_step=True).halting_logits
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))  # changes nothing at first
        assert_close(adapted(**inputs, answer_every_step=True).halting_logits, before)
    assert not [name for name, _ in adapted.named_parameters() if "halting_head" in name and "lora" in name]


def test_model_without_a_head_has_no_weights_of_one():
    assert not [name for name in tiny_storm("qwen2_5_vl").state_dict() if "halting" in name]


@pytest.mark.parametrize(
    "options",
    [
        {"latent_bottleneck": True},
        {"use_cache": False},
        {"prefill_chunk_size": 4},
        {"cache_implementation": "static"},
        {"num_latents": 0},
        {"synced_gpus": True},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_halting_that_cannot_be_is_refused_if_asked_for(options):
    model = tiny_storm("qwen2_5_vl", halting_head=True)
    with pytest.raises(ConfigurationError, match="`halting=True` needs"):
        model.generate(**tiny_inputs("qwen2_5_vl"), **GREEDY, halting=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        {"prompt_lookup_num_tokens": 2, "num_rows": 1},
    ],
    ids=["no cache", "static cache", "drafts"],
)
def test_generation_that_cannot_halt_thinks_for_all_steps_by_default(options):
    options = dict(options)
    model = tiny_storm("qwen2_5_vl", halting_head=True)
    torch.nn.init.constant_(model.model.halting_head.bias, 10.0)
    inputs = tiny_inputs("qwen2_5_vl", (5, 3)[: options.pop("num_rows", 2)])
    output = model.generate(**inputs, **GREEDY, **options)
    assert "num_latents_used" not in output
    assert torch.equal(output.sequences, model.generate(**inputs, **GREEDY, halting=False).sequences)


def test_model_without_a_head_refuses_to_halt():
    with pytest.raises(ConfigurationError, match="no halting head"):
        tiny_storm("qwen2_5_vl").generate(**tiny_inputs("qwen2_5_vl"), **GREEDY, halting=True)


def test_another_number_of_latents_than_the_models_is_kept():
    model = tiny_storm("qwen2_5_vl", halting_head=True)
    assert "num_latents_used" not in model.generate(**tiny_inputs("qwen2_5_vl"), **GREEDY, num_latents=3)
    output = model.generate(**tiny_inputs("qwen2_5_vl"), **GREEDY, num_latents=3, halting=True)
    assert output.num_latents_used.tolist() == [3, 3]


def test_answers_every_step_are_refused_where_a_cache_cannot_be_replayed():
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6, "use_sliding_window": True}
    model = tiny_storm("qwen2_5_vl", vlm_config=tiny_config("qwen2_5_vl", **layers), halting_head=True)
    with pytest.raises(ConfigurationError, match="Train without `halting`"):
        model(**tiny_inputs("qwen2_5_vl"), answer_every_step=True)


def test_answers_every_step_need_blocks_in_the_same_columns():
    inputs = tiny_inputs("qwen2_5_vl")
    moved = {name: value.clone() for name, value in inputs.items()}
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        moved[name][1] = inputs[name][1].roll(-2)
    with pytest.raises(LatentError, match="Pad the prompts on the left"):
        tiny_storm("qwen2_5_vl")(**moved, answer_every_step=True)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_threshold_is_a_probability(threshold):
    with pytest.raises(ConfigurationError, match="halting_threshold"):
        StormConfig(vlm_config=tiny_storm("qwen2_5_vl").config.vlm_config, halting_threshold=threshold)


def test_head_needs_latents_that_do_not_depend_on_their_number():
    with pytest.raises(ConfigurationError, match="latent_attention='full'"):
        tiny_storm("qwen2_5_vl", halting_head=True, latent_attention="step")
