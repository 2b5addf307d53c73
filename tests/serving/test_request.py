"""Fields of a request: each is done, or refused by its name."""

import json
import random
import re
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.completion_create_params import CompletionCreateParamsBase, CompletionCreateParamsStreaming

from storm_hf.errors import RequestError
from storm_hf.serving.request import MAX_CHARACTERS, MAX_FILES, UNDONE, ChatCompletionRequest, parse_request


QUESTION = [{"role": "user", "content": "?"}]
PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
OF_TRANSFORMERS = {"generation_config", "seed", "chat_template_kwargs"}


def parse(**fields):
    return parse_request(json.dumps({"messages": QUESTION, **fields}).encode())


def refused(**fields):
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    return caught.value


def message(**fields):
    return {"messages": [{"role": "user", "content": "?", **fields}]}


def part(**fields):
    return message(content=[{"type": "text", "text": "?"}, fields])


def test_every_field_of_openai_and_of_transformers_is_done_or_refused_by_name():
    known = set(CompletionCreateParamsBase.__annotations__) | set(CompletionCreateParamsStreaming.__annotations__)
    assert known | OF_TRANSFORMERS <= set(ChatCompletionRequest.model_fields) | set(UNDONE)
    assert not set(ChatCompletionRequest.model_fields) & set(UNDONE)


def test_page_has_a_row_for_every_field():
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", PAGE.read_text(), re.MULTILINE))))
    assert set(ChatCompletionRequest.model_fields) | set(UNDONE) <= named


@pytest.mark.parametrize("name", UNDONE)
def test_field_that_is_not_done_is_refused_by_name(name):
    error = refused(**{name: 7})
    assert (error.status, error.param) == (422, name)
    assert f"does not do `{name}`" in str(error)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in UNDONE.items() for value in values])
def test_value_that_asks_for_nothing_is_taken(name, value):
    parse(**{name: value})


@pytest.mark.parametrize("name", [*UNDONE, *sorted(set(ChatCompletionRequest.model_fields) - {"messages"})])
def test_null_is_the_same_as_absent(name):
    assert parse(**{name: None}) == parse()


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"top_k": 5}, "top_k", "no field `top_k`"),
        ({"max_tokens": "5"}, "max_tokens", "valid integer"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"max_completion_tokens": [1]}, "max_completion_tokens", "valid integer"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "differ"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 9}, "n", "less than or equal to 8"),
        ({"n": 1.5}, "n", "valid integer"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"top_p": -1}, "top_p", "greater than or equal to 0"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
        ({"top_p": 0.5}, "top_p", "needs a `temperature`"),
        ({"seed": "x"}, "seed", "valid integer"),
        ({"seed": 2**70}, "seed", "less than"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"stop": 1}, "stop", "valid list"),
        ({"stop": ["a"] * 5}, "stop", "at most 4 items"),
        ({"stop": [1]}, "stop", "`stop[0]`"),
        ({"stop": "a" * 257}, "stop", "at most 256 characters"),
        ({"frequency_penalty": "x"}, "frequency_penalty", "valid number"),
        ({"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
        ({"logit_bias": "x"}, "logit_bias", "valid dictionary"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"²": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "`logit_bias.5`"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "`stream: true` only"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options", "does not do"),
        ({"stream": True, "stream_options": {"chunks": 1}}, "stream_options", "no field `stream_options.chunks`"),
        ({"logprobs": 0}, "logprobs", "beyond false"),
        ({"response_format": {"type": "json_object"}}, "response_format", "does not do"),
        ({"tool_choice": "auto"}, "tool_choice", 'beyond "none"'),
        ({"chat_template_kwargs": {"chat_template": "{{ x }}"}}, "chat_template_kwargs", "valid boolean"),
        ({"num_latents": 1.0}, "num_latents", "valid integer"),
        ({"latents": "sharp"}, "latents", "one of own, zero"),
        ({"latents": "donor"}, "donor_messages", "only with it"),
        ({"donor_messages": QUESTION}, "donor_messages", "only with it"),
        ({"model": 1}, "model", "valid string"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": None}, "messages", "the request has none"),
        ({"messages": "?"}, "messages", "valid list"),
        ({"messages": [1]}, "messages", "`messages[0]`"),
        ({"messages": [{"role": "user"}]}, "messages", "`messages[0].content`"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "!"}]}, "messages", "must be the user's"),
        (message(role="tool"), "messages", "'system', 'developer', 'user' or 'assistant'"),
        (message(content=3), "messages", "valid list"),
        (message(name="me"), "messages", "does not do `messages[0].name`"),
        (message(tool_calls=[{"id": "1"}]), "messages", "does not do `messages[0].tool_calls` beyond []"),
        (message(mood="calm"), "messages", "no field `messages[0].mood`"),
        (part(type="input_audio"), "messages", "'text', 'image_url', 'video_url'"),
        (part(type="text"), "messages", "`messages[0].content[1].text`"),
        (part(type="text", text=3), "messages", "`messages[0].content[1].text`"),
        (part(type="video_url", video_url=3), "messages", "`messages[0].content[1].video_url`"),
        (part(type="video_url", video_url={"url": "a", "fps": 1}), "messages", "content[1].video_url.fps`"),
        (part(type="image_url", image_url={"url": "a", "detail": "low"}), "messages", "does not do"),
        (message(content="a\ud800"), None, "surrogate"),
        ({"user": "\udfff"}, None, "surrogate"),
        ({"\ud800": 1}, None, "surrogate"),
    ],
)
def test_malformed_field_is_refused_by_name(fields, param, said):
    error = refused(**fields)
    assert (error.status, error.param) == (422, param)
    assert said in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[1]",
        b"7",
        b'{"messages": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(RequestError, match="Expected a JSON object") as caught:
        parse_request(body)
    assert caught.value.status == 422


def test_surrogate_pair_is_a_character():
    request = parse(messages=[{"role": "user", "content": "\U0001f3a5"}])
    assert request.messages[0].content[0].text == "\U0001f3a5"


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text", "text": "a" * (MAX_CHARACTERS + 1)}],
        [{"type": "image_url", "image_url": "a"}] * (MAX_FILES + 1),
    ],
    ids=["text", "files"],
)
def test_conversation_that_is_too_large_is_refused(parts):
    error = refused(messages=[{"role": "user", "content": parts}])
    assert (error.status, error.param) == (413, "messages")


def test_answer_of_a_client_can_be_sent_back():
    answer = ChatCompletionMessage(role="assistant", content="!", annotations=[], refusal=None)
    given = [*QUESTION, answer.model_dump(), *QUESTION]
    assert [message.role for message in parse(messages=given).messages] == ["user", "assistant", "user"]


def draw(draws, depth=0):
    """Draw a JSON value, sometimes one that looks like a part of a request."""
    choice = draws.random() if depth < 3 else 1
    if choice < 0.3:
        return [draw(draws, depth + 1) for _ in range(draws.randint(0, 3))]
    if choice < 0.6:
        return {
            draws.choice(("role", "content", "type", "text", "url", "1")): draw(draws, depth + 1) for _ in range(3)
        }
    return draws.choice(
        [None, True, 0, -1, 2**70, 1.5, -1e308, "", "x", "\ud800", "user", "text", "video_url", "7" * 5000]
    )


def test_body_of_random_values_is_read_or_refused():
    draws, names = random.Random(0), [*ChatCompletionRequest.model_fields, *UNDONE, "top_k", "", "\ud800", "a.b"]
    statuses = set()
    for _ in range(3000):
        fields = {draws.choice(names): draw(draws) for _ in range(draws.randint(0, 3))}
        try:
            parse(**fields)
            statuses.add(200)
        except RequestError as error:
            statuses.add(error.status)
    assert statuses == {200, 422}
