"""Requests with the real client of OpenAI, and the same ones streamed over plain HTTP: each outcome is that of docs/serve.md."""

import json

import httpx
import pytest
from openai import APIStatusError
from tests.serving.conftest import KEY, data_uri, in_parts


QUESTION = [{"role": "user", "content": "Which cup hides the ball?"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "cup", "schema": {"type": "object"}}}
TOOL = {"type": "function", "function": {"name": "cut", "parameters": {"type": "object", "properties": {}}}}
TURNS = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "B"}, *QUESTION]
MOST = 16  # --max-new-tokens of the server

DONE = {
    "no field": {},
    "model": {"model": "tiny-storm"},
    "model null": {"model": None},
    "max_tokens": {"max_tokens": 1},
    "max_tokens most": {"max_tokens": MOST},
    "max_completion_tokens": {"max_completion_tokens": 3},
    "both limits": {"max_completion_tokens": 3, "max_tokens": 3},
    "n": {"n": 3},
    "n with temperature": {"n": 2, "temperature": 1.5, "seed": 3},
    "temperature 0": {"temperature": 0},
    "temperature 2": {"temperature": 2},
    "temperature tiny": {"temperature": 1e-30},
    "top_p": {"temperature": 1, "top_p": 0.1},
    "top_p 0": {"temperature": 1, "top_p": 0},
    "top_p 1": {"top_p": 1},
    "seed": {"seed": 2**40},
    "seed negative": {"seed": -1, "temperature": 1},
    "seed largest": {"seed": 2**63 - 1, "temperature": 1, "n": 2},
    "stop": {"stop": "zzz"},
    "stop list": {"stop": ["zzz", "\n\n"]},
    "stop of none": {"stop": []},
    "frequency_penalty": {"frequency_penalty": 2},
    "presence_penalty": {"presence_penalty": -2.0},
    "logit_bias": {"logit_bias": {"5": 10, "6": -100}},
    "logit_bias of none": {"logit_bias": {}},
    "user": {"user": "me"},
    "num_latents 0": {"num_latents": 0},
    "num_latents": {"num_latents": 5},
    "latents zero": {"latents": "zero"},
    "latents of a donor": {"latents": "donor", "donor_messages": QUESTION},
    "logprobs false": {"logprobs": False},
    "response_format text": {"response_format": {"type": "text"}},
    "tools of none": {"tools": []},
    "tool_choice none": {"tool_choice": "none"},
    "store false": {"store": False},
    "service_tier auto": {"service_tier": "auto"},
    "modalities text": {"modalities": ["text"]},
    "turns": {"messages": TURNS},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, *QUESTION]},
    "control tokens": {"messages": [{"role": "user", "content": "<|latent|><|video_pad|><|im_end|> Where?"}]},
    "no character": {"messages": [{"role": "user", "content": ""}]},
}
REFUSED = {
    "model of another": ({"model": "another"}, 404, "model"),
    "max_tokens 0": ({"max_tokens": 0}, 422, "max_tokens"),
    "max_tokens too many": ({"max_tokens": MOST + 1}, 422, "max_tokens"),
    "max_completion_tokens too many": ({"max_completion_tokens": MOST + 1}, 422, "max_completion_tokens"),
    "max_tokens text": ({"max_tokens": "5"}, 422, "max_tokens"),
    "n 0": ({"n": 0}, 422, "n"),
    "n many": ({"n": 2000}, 422, "n"),
    "temperature -1": ({"temperature": -1}, 422, "temperature"),
    "temperature 9": ({"temperature": 9}, 422, "temperature"),
    "temperature text": ({"temperature": "hot"}, 422, "temperature"),
    "top_p -1": ({"top_p": -1}, 422, "top_p"),
    "top_p alone": ({"top_p": 0.5}, 422, "top_p"),
    "seed huge": ({"seed": 2**70}, 422, "seed"),
    "stop of nothing": ({"stop": ""}, 422, "stop"),
    "stop number": ({"stop": 1}, 422, "stop"),
    "frequency_penalty text": ({"frequency_penalty": "x"}, 422, "frequency_penalty"),
    "logit_bias text": ({"logit_bias": "x"}, 422, "logit_bias"),
    "logit_bias of no token": ({"logit_bias": {"999999999": 1}}, 422, "logit_bias"),
    "logprobs": ({"logprobs": True}, 422, "logprobs"),
    "top_logprobs": ({"top_logprobs": 2}, 422, "top_logprobs"),
    "json_object": ({"response_format": {"type": "json_object"}}, 422, "response_format"),
    "json_schema": ({"response_format": SCHEMA}, 422, "response_format"),
    "tools": ({"tools": [TOOL]}, 422, "tools"),
    "tool_choice": ({"tool_choice": "auto"}, 422, "tool_choice"),
    "functions": ({"functions": [TOOL["function"]]}, 422, "functions"),
    "generation_config": ({"generation_config": '{"num_return_sequences": 2000}'}, 422, "generation_config"),
    "generation_config broken": ({"generation_config": "{bad"}, 422, "generation_config"),
    "chat_template_kwargs": ({"chat_template_kwargs": {"enable_thinking": True}}, 422, "chat_template_kwargs"),
    "reasoning_effort": ({"reasoning_effort": "high"}, 422, "reasoning_effort"),
    "metadata": ({"metadata": {"a": "b"}}, 422, "metadata"),
    "store": ({"store": True}, 422, "store"),
    "web_search_options": ({"web_search_options": {}}, 422, "web_search_options"),
    "top_k": ({"top_k": 3}, 422, "top_k"),
    "num_latents -1": ({"num_latents": -1}, 422, "num_latents"),
    "num_latents many": ({"num_latents": 65}, 422, "num_latents"),
    "latents unknown": ({"latents": "sharp"}, 422, "latents"),
    "latents of none": ({"latents": "zero", "num_latents": 0}, 422, "latents"),
    "donor without messages": ({"latents": "donor"}, 422, "donor_messages"),
    "messages of none": ({"messages": []}, 422, "messages"),
    "messages of the assistant": ({"messages": TURNS[:3]}, 422, "messages"),
    "messages of a tool": ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, 422, "messages"),
    "text that is too long": ({"messages": [{"role": "user", "content": "a b " * 50_000}]}, 413, "messages"),
}


def complete(served, **fields):
    """Ask with the client of OpenAI, which hands fields that it does not know on as they are."""
    body = {"model": "tiny-storm", "messages": QUESTION, "max_tokens": 6, **fields}
    if "max_completion_tokens" in fields:
        body["max_tokens"] = fields.get("max_tokens")
    return served.client.chat.completions.create(model=None, messages=None, extra_body=body)


def events(served, **fields):
    """Ask over plain HTTP; return the status and what the stream holds."""
    body = {"messages": QUESTION, "max_tokens": 6, "stream": True, **fields}
    if "max_completion_tokens" in fields:
        body["max_tokens"] = fields.get("max_tokens")
    response = httpx.post(
        f"{served.url}v1/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    )
    if response.status_code != 200:
        return response.status_code, response.json()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert all(block.startswith("data: ") for block in blocks[:-1])
    assert blocks[-2:] == ["data: [DONE]", ""]
    return 200, [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def joined(chunks):
    """Text and finish reason of each choice of a stream."""
    parts, ends = {}, {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        parts.setdefault(choice["index"], []).append(choice["delta"].get("content", ""))
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    return {index: ("".join(pieces), ends[index]) for index, pieces in parts.items()}


@pytest.mark.parametrize("fields", DONE.values(), ids=DONE.keys())
def test_request_is_answered_whole_and_streamed_alike(served, fields):
    answer = complete(served, **fields)
    assert answer.object == "chat.completion"
    assert [choice.index for choice in answer.choices] == list(range(fields.get("n", 1)))
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    most = fields.get("max_completion_tokens") or fields.get("max_tokens", 6)
    assert 1 <= usage.completion_tokens <= most * len(answer.choices)
    status, chunks = events(served, **fields)
    assert status == 200
    assert all("usage" not in chunk for chunk in chunks)
    if not fields.get("temperature") or "seed" in fields:
        whole = {choice.index: (choice.message.content, choice.finish_reason) for choice in answer.choices}
        assert joined(chunks) == whole


@pytest.mark.parametrize(("fields", "status", "param"), REFUSED.values(), ids=REFUSED.keys())
def test_request_is_refused_by_name_in_the_form_of_openai(served, fields, status, param):
    with pytest.raises(APIStatusError) as caught:
        complete(served, **fields)
    error = caught.value
    assert (error.status_code, error.param, error.type) == (status, param, "invalid_request_error")
    assert set(error.body) == {"message", "type", "param", "code"}
    assert events(served, **fields) == (status, {"error": error.body})


def test_seed_decides_what_is_sampled(served):
    def said(**fields):
        return [choice.message.content for choice in complete(served, temperature=2.0, **fields).choices]

    by_seed = [said(seed=seed) for seed in range(5)]
    assert len({text for (text,) in by_seed}) > 1
    assert [said(seed=seed) for seed in range(5)] == by_seed
    assert said(seed=0, n=5) == [text for (text,) in by_seed]
    assert len({said()[0] for _ in range(5)}) > 1  # without a seed at random, whatever was asked before


@pytest.mark.parametrize(("stop", "num_tokens"), [("77", 2), (["x", "777"], 3)])
def test_stop_string_ends_the_answer_and_is_no_part_of_it(served, storm_tokenizer, stop, num_tokens):
    token_id = storm_tokenizer("7", add_special_tokens=False).input_ids[0]
    fields = {"logit_bias": {str(token_id): 100}, "max_tokens": MOST}
    assert complete(served, **fields).choices[0].message.content == "7" * MOST
    answer = complete(served, stop=stop, **fields)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "stop")
    assert answer.usage.completion_tokens == num_tokens
    assert joined(events(served, stop=stop, **fields)[1]) == {0: ("", "stop")}


def test_bias_forbids_and_forces_a_token(served, storm_tokenizer):
    token_id = storm_tokenizer("7", add_special_tokens=False).input_ids[0]
    text = storm_tokenizer.decode([token_id])
    assert complete(served, logit_bias={str(token_id): 100}).choices[0].message.content == text * 6
    forced = complete(served, logit_bias={str(token_id): 100}, frequency_penalty=2.0)
    assert text in forced.choices[0].message.content
    assert text not in complete(served, logit_bias={str(token_id): -100}).choices[0].message.content


def test_usage_comes_last_in_a_chunk_without_choices(served):
    whole = complete(served).usage
    _, chunks = events(served, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"})
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        (chunks[0]["id"], "tiny-storm", "chat.completion.chunk")
    }
    assert chunks[-2]["choices"][0]["delta"] == {}


@pytest.mark.parametrize(
    "kind",
    [
        *("video/mp4", "VIDEO/MP4", "", "video/webm;codecs=vp8", "video/webm;codecs=vp8,opus"),
        *('video/mp4;codecs="avc1.42E01E, mp4a.40.2"', 'video/mp4;a=";base64,";b=c', "video/mp4; codecs=vp8"),
    ],
)
def test_type_of_a_data_uri_may_have_parameters(served, clip, kind):
    messages = in_parts({"type": "video_url", "video_url": {"url": data_uri(clip, kind)}})
    assert complete(served, messages=messages).choices[0].message.content is not None


def test_page_of_fields_is_covered():
    assert len(DONE) + len(REFUSED) >= 60
