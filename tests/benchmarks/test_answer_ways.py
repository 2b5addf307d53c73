import pytest
import torch
from answer_ways import CHAINS, Request, all_ways, first_token, plain, random_prompt, storm


WAYS = all_ways()
THINKING = [way for way in WAYS.values() if way.num_latents is not None and not way.name.startswith("STORM")]
NUM_TOKENS = 5


@pytest.fixture(scope="module")
def request_(tiny):
    return Request(random_prompt(tiny, 2, 24), NUM_TOKENS)


@pytest.mark.parametrize("way", THINKING, ids=lambda way: way.name)
def test_other_way_to_think_has_the_latents_and_the_answer_of_storm(tiny, request_, way):
    own, found = storm(tiny, request_, way.num_latents), way.answer(tiny, request_)
    assert (found.latents - own.latents).norm() <= 1e-5 * own.latents.norm()
    assert torch.equal(found.tokens, own.tokens)


@pytest.mark.parametrize("name", [name for name in WAYS if not name.startswith(("text", "first"))])
def test_way_writes_as_many_tokens_as_it_is_asked_for(tiny, request_, name):
    assert WAYS[name].answer(tiny, request_).tokens.shape == (2, NUM_TOKENS)


def test_direct_answer_is_that_of_plain_transformers(tiny, request_):
    assert torch.equal(storm(tiny, request_, num_latents=0).tokens, plain(tiny, request_).tokens)


def test_first_token_is_that_of_the_direct_answer(tiny, request_):
    assert torch.equal(first_token(tiny, request_).tokens, plain(tiny, request_).tokens[:, :1])


def test_answer_after_a_chain_is_the_end_of_a_longer_answer(tiny, request_):
    chain = CHAINS[0]
    longer = plain(tiny, Request(request_.prompt, chain + NUM_TOKENS)).tokens
    assert torch.equal(WAYS[f"text {chain}"].answer(tiny, request_).tokens, longer[:, chain:])


def test_pause_tokens_change_the_answer_of_some_prompt(tiny):
    request = Request(random_prompt(tiny, 8, 24), NUM_TOKENS)
    assert not torch.equal(WAYS["pause K=8"].answer(tiny, request).tokens, plain(tiny, request).tokens)


@pytest.mark.parametrize("name", ["direct, transformers", "direct", "STORM K=8", "row by row K=8"])
def test_static_cache_changes_no_answer(tiny, request_, name):
    static = Request(request_.prompt, NUM_TOKENS, is_static=True)
    assert torch.equal(WAYS[name].answer(tiny, static).tokens, WAYS[name].answer(tiny, request_).tokens)
