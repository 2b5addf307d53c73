"""Text of an answer while it is generated, penalties, and settings of generation."""

from threading import Event

import pytest
import torch
from tests.tiny import tiny_processor
from transformers import GenerationConfig

from storm_hf.errors import RequestError
from storm_hf.serving.generation import AnswerText, RepetitionPenalties, generation_config
from storm_hf.serving.request import ChatCompletionRequest


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_processor().tokenizer


def make(tokenizer, stop=(), on_text=lambda piece: None, end_ids=(), cancelled=None):
    return AnswerText(tokenizer, list(stop), end_ids, on_text, cancelled or Event())


def write(tokenizer, text, stop, num_cut=0, end_ids=()):
    """Hand on the tokens of a text as generation does; return the answer and its pieces."""
    pieces = []
    answer = make(tokenizer, stop, pieces.append, end_ids)
    token_ids = tokenizer(text, add_special_tokens=False).input_ids
    for end in range(1, len(token_ids) - num_cut + 1):
        if answer(torch.tensor([[1, 2, 3, *token_ids[:end]]]), None).all():
            break
    answer.finish()
    return answer, pieces


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("the red ball", [], "the red ball"),
        ("the red ball", ["blue"], "the red ball"),
        ("the red ball", [" ball"], "the red"),
        ("the red ball", ["ball", "red"], "the "),
        ("the red ball", ["the"], ""),
        ("the red ball", ["ball!"], "the red ball"),  # held back, and given at the end
        ("aaab", ["aab"], "a"),
        ("one\ntwo", ["\n"], "one"),
        ("é ü 🎥 end", ["🎥"], "é ü "),
        ("é ü 🎥 end", [], "é ü 🎥 end"),
    ],
)
def test_answer_ends_before_a_stop_string(tokenizer, text, stop, expected):
    answer, pieces = write(tokenizer, text, stop)
    assert answer.text == "".join(pieces) == expected
    assert answer.is_ended == (expected != text)


def test_tokens_after_a_stop_string_are_not_generated(tokenizer):
    text = "one two three four"
    answer, _ = write(tokenizer, text, ["two"])
    assert tokenizer.decode(answer.token_ids) == "one two"


def test_character_that_the_end_cuts_is_streamed_as_it_is_decoded(tokenizer):
    answer, pieces = write(tokenizer, "a 🎥", [], num_cut=1)
    assert "".join(pieces) == answer.text == tokenizer.decode(answer.token_ids)


def test_token_that_ends_the_answer_is_the_last_one_that_counts(tokenizer):
    answer = make(tokenizer, end_ids=[7])
    assert not answer(torch.tensor([[5]]), None).any()
    assert answer(torch.tensor([[5, 7]]), None).all()
    assert answer(torch.tensor([[5, 7, 9]]), None).all()  # as on devices that stop one step late
    assert (answer.token_ids, answer.is_ended) == ([5, 7], True)


def test_cancelled_answer_ends(tokenizer):
    cancelled = Event()
    answer = make(tokenizer, cancelled=cancelled)
    assert not answer(torch.tensor([[5]]), None).any()
    cancelled.set()
    assert answer(torch.tensor([[5, 6]]), None).all()
    assert not answer.is_ended


def test_penalties_are_those_of_openai(tokenizer):
    answer = make(tokenizer)
    penalties = RepetitionPenalties(answer, frequency=0.5, presence=1.0)
    scores = torch.zeros(1, 4)
    assert penalties(torch.tensor([[1, 1, 1]]), scores).tolist() == [[0, 0, 0, 0]]  # the prompt does not count
    answer.token_ids = [1, 3, 3]
    assert penalties(torch.tensor([[1, 1, 1, 1, 3, 3]]), scores).tolist() == [[0, -1.5, 0, -2.0]]


def settings(default=None, **fields):
    request = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "?"}], **fields})
    return generation_config(request, default or GenerationConfig(), 100, 5)


OF_A_CHECKPOINT = GenerationConfig(do_sample=True, temperature=0.1, top_k=3, top_p=0.1, num_beams=4, max_length=9)


@pytest.mark.parametrize("default", [GenerationConfig(), OF_A_CHECKPOINT], ids=["plain", "of a checkpoint"])
@pytest.mark.parametrize(
    ("fields", "do_sample", "temperature", "top_p"),
    [
        ({}, False, 1, 1),
        ({"temperature": 0}, False, 1, 1),
        ({"temperature": 1e-30}, False, 1, 1),  # a division would overflow
        ({"temperature": 0, "top_p": 0.5}, False, 1, 1),
        ({"temperature": 0.7}, True, 0.7, 1),
        ({"temperature": 1, "top_p": 0.5}, True, 1, 0.5),
    ],
)
def test_temperature_above_zero_samples_and_the_checkpoint_has_no_say(default, fields, do_sample, temperature, top_p):
    config = settings(default, **fields)
    assert (config.do_sample, config.temperature, config.top_p) == (do_sample, temperature, top_p)
    assert (config.num_beams, config.max_new_tokens) == (1, 5)
    assert config.top_k == (0 if do_sample else 50)  # 50 is what transformers takes as none of greedy decoding


def test_bias_of_no_token_is_refused():
    assert settings(logit_bias={"99": -100}).sequence_bias == [[[99], -100.0]]
    with pytest.raises(RequestError, match="below 100") as caught:
        settings(logit_bias={"100": 1})
    assert (caught.value.status, caught.value.param) == (422, "logit_bias")
