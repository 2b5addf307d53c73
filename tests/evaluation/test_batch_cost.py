import pytest
from tests.diagnostics.thinker import NUM_LATENTS, saying

from storm_hf.evaluation.batch import Answer, counted_passes, measure_cost, tokens_before_answer


CHAIN = "step one swap red green , ball at green . green"


def answer_in(thinker, text, choice):
    tokenizer = thinker.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Answer(text, choice, None, [*ids, tokenizer.eos_token_id])


@pytest.mark.parametrize(
    ("text", "choice", "expected"),
    [
        ("red", "red", 0),
        ("blue red green", "green", 2),
        (CHAIN, "green", 10),
        ("ball at red.", "red", 2),
        ("at red , ball at green cup swap none", "green", 5),
        ("B", "green", 0),
        ("ball at cup", None, 2),
    ],
)
def test_reasoning_is_what_comes_before_the_answer_word(thinker, text, choice, expected):
    assert tokens_before_answer(answer_in(thinker, text, choice), thinker.processor) == expected


def test_answer_word_of_several_tokens_begins_at_its_first(thinker):
    answer = answer_in(thinker, "ball at Kraków", "Kraków")
    first = answer.token_ids.index(*thinker.processor.tokenizer("K")["input_ids"])
    assert len(answer.token_ids) > first + 2
    assert tokens_before_answer(answer, thinker.processor) == first


@pytest.mark.parametrize(
    ("num_latents", "said", "passes"),
    [
        (0, "red", 1),
        (NUM_LATENTS, "red", NUM_LATENTS + 1),
        (2, "red", 3),
        (0, CHAIN, 1 + 10),
        (NUM_LATENTS, "at red", NUM_LATENTS + 2),
    ],
)
def test_cost_counts_forward_passes_up_to_the_first_token_of_the_answer(thinker, num_latents, said, passes):
    with saying(thinker, said):
        cost = measure_cost(thinker.model, thinker.prompts(num_latents), thinker.rows, max_new_tokens=20)
    assert cost.forward_passes == passes
    assert cost.seconds > 0


def test_cost_of_an_answer_without_a_word_is_counted(thinker):
    """An untrained model may say nothing but padding, or end at once."""
    pad = thinker.processor.tokenizer.pad_token
    for said in ("", pad * 4):
        with saying(thinker, said):
            assert measure_cost(thinker.model, thinker.prompts(0), thinker.rows, max_new_tokens=4).forward_passes == 1


def test_measuring_leaves_the_model_as_it_was(thinker):
    with saying(thinker, "red"):
        measure_cost(thinker.model, thinker.prompts(), thinker.rows)
    assert not thinker.model.get_decoder()._forward_hooks


def test_counting_ends_with_a_failure_too(thinker):
    with pytest.raises(KeyboardInterrupt), counted_passes(thinker.model):
        raise KeyboardInterrupt
    assert not thinker.model.get_decoder()._forward_hooks
