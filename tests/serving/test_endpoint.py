"""The endpoint over raw sockets: keys, bodies, errors, clients that go away."""

import asyncio
import json
import select
import socket
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from tests.serving.conftest import BODY_SECONDS, KEY
from tests.tiny import tiny_processor

from storm_hf.errors import RequestError
from storm_hf.evaluation import load_checkpoint
from storm_hf.serving.chat import ChatModel
from storm_hf.serving.endpoint import ChatEndpoint
from storm_hf.serving.limits import RequestLimiter, ServerStats
from storm_hf.serving.request import parse_request
from storm_hf.serving.server import build_app


QUESTION = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 2}


@contextmanager
def connected(served):
    place = urlsplit(served.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        yield connection


def request(body=b"", length=None, host="a", path="/v1/chat/completions", key=KEY, **headers):
    named = {"Host": host, "Authorization": f"Bearer {key}", "Content-Length": len(body) if length is None else length}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**named, **headers}.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_response(connection):
    """Read one response of known length; return its status and its JSON."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (piece := connection.recv(65536))
        assert piece, received
    head, _, content = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(content) < length:
        content += connection.recv(65536)
    return int(head.split()[1]), json.loads(content)


def ask(connection, body=QUESTION, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.sendall(request(content, **options))
    return read_response(connection)


def health(served):
    return httpx.get(f"{served.url}health").json()


def wait_until_idle(served, seconds=10):
    end = time.monotonic() + seconds
    while health(served)["in_flight"]:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"", b'{"messages": NaN}', json.dumps({**QUESTION, "seed": "x"}).encode()]
    + [json.dumps({"messages": [{"role": "user", "content": "a\ud800"}]}).encode()],
)
def test_connection_can_be_used_again_after_a_refusal(served, body):
    with connected(served) as connection:
        status, reply = ask(connection, body)
        assert (status, set(reply["error"])) == (422, {"message", "type", "param", "code"})
        assert ask(connection)[0] == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_scheme_of_the_key_is_read_in_any_case(served, scheme):
    with connected(served) as connection:
        assert ask(connection, Authorization=f"{scheme} {KEY}")[0] == 200


@pytest.mark.parametrize("given", ["", KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", f"Bearer{KEY}"])
def test_key_without_its_scheme_or_another_one_is_refused(served, given):
    with connected(served) as connection:
        assert ask(connection, Authorization=given)[0] == 401


@pytest.mark.parametrize("host", ["a?b", "a/b", "a#b", "[", "a@b", "a b", ""])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "//v1/chat/completions", "/v1/chat/completions?a=/health"])
def test_no_host_and_no_path_goes_around_the_key(served, host, path):
    with connected(served) as connection:
        connection.sendall(request(json.dumps(QUESTION).encode(), host=host, path=path, key="guessed"))
        assert connection.recv(65536).split()[1] in (b"400", b"401", b"404")


def test_body_that_does_not_come_is_given_up_and_takes_no_place(served):
    start = time.monotonic()
    with connected(served) as connection:
        connection.sendall(request(length=100))
        time.sleep(0.3)
        assert health(served)["in_flight"] == 0
        status, reply = read_response(connection)
    assert (status, "within 2 seconds" in reply["error"]["message"]) == (408, True)
    assert BODY_SECONDS <= time.monotonic() - start < BODY_SECONDS + 5


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3"])
def test_body_of_unknown_length_is_refused(served, length):
    with connected(served) as connection:
        connection.sendall(request(length=length))
        assert connection.recv(65536).split()[1] in (b"400", b"411")


def test_chunked_body_is_refused_with_the_reason(served):
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{served.url}v1/chat/completions", content=iter([b"{}"]), headers=headers)
    assert answer.status_code == 411
    assert "Content-Length" in answer.json()["error"]["message"]


def test_client_that_is_refused_before_its_body_is_sent_reads_why(served):
    with connected(served) as connection:
        body = bytes(8 * 2**20)  # more than the buffers on the way hold
        connection.sendall(request(body))
        status, reply = read_response(connection)
    assert (status, "at most 2,097,152 bytes" in reply["error"]["message"]) == (413, True)


def is_under_way(served, connection):
    """Wait until a request is in flight; false where its answer was quicker than we looked."""
    while not health(served)["in_flight"]:
        if select.select([connection], [], [], 0.005)[0]:
            return False
    return True


@pytest.mark.parametrize("stream", [False, True])
def test_place_is_given_back_when_the_client_goes_away(served, storm_tokenizer, stream):
    endless = {"max_tokens": 16, "n": 8, "logit_bias": {str(storm_tokenizer.eos_token_id): -100}, "stream": stream}
    before = health(served)["cancelled"]
    for _ in range(20):  # the whole answer takes a moment: the client may be too late
        with connected(served) as connection:
            connection.sendall(request(json.dumps({**QUESTION, **endless}).encode()))
            gone_early = is_under_way(served, connection)
        wait_until_idle(served)
        if gone_early and health(served)["cancelled"] == before + 1:
            return
    pytest.fail(f"20 clients went away, and {health(served)['cancelled'] - before} are counted.")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "v1/chat/completions", 405), ("POST", "v1/none", 404)])
def test_other_paths_and_methods_are_refused_in_the_same_form(served, method, path, status):
    answer = httpx.request(method, f"{served.url}{path}")
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_id_of_a_request_is_that_of_the_client_where_it_is_one(served):
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "mine-1"}
    answer = httpx.post(f"{served.url}v1/chat/completions", json=QUESTION, headers=headers)
    assert answer.headers["X-Request-ID"] == "mine-1"
    assert answer.json()["id"] == "chatcmpl-mine-1"
    odd = httpx.post(f"{served.url}v1/chat/completions", json=QUESTION, headers={**headers, "X-Request-ID": "a b"})
    assert odd.headers["X-Request-ID"] != "a b"


@pytest.fixture(scope="module")
def chat(storm_folder):
    model, processor = load_checkpoint(str(storm_folder))
    return ChatModel("tiny-storm", model, processor, max_new_tokens=16)


def client_of(chat, **limits):
    return TestClient(build_app(chat, RequestLimiter(**limits)), base_url="http://testserver")


@pytest.mark.parametrize(
    "error", [RuntimeError("secret path"), KeyError(1), MemoryError(), OSError(24, "too many files")]
)
@pytest.mark.parametrize("stage", ["prepare", "answer"])
@pytest.mark.parametrize("stream", [False, True])
def test_fault_of_the_server_is_a_500_in_the_form_of_openai(chat, monkeypatch, caplog, stage, stream, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(chat, stage, fail)
    with client_of(chat) as client:
        answer = client.post("/v1/chat/completions", json={**QUESTION, "stream": stream})
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert type(error).__name__ in answer.json()["error"]["message"]
        assert "secret" not in answer.text
        assert "Traceback" in caplog.text  # for the one who runs the server
        assert client.get("/health").json()["failed"] == 1
        assert client.get("/health").json()["in_flight"] == 0


def test_fault_in_the_middle_of_a_stream_is_its_last_event(chat, monkeypatch):
    def fail(prompt, on_text, cancelled):
        on_text(0, "The")
        raise RuntimeError("secret path")

    monkeypatch.setattr(chat, "answer", fail)
    with client_of(chat) as client:
        answer = client.post("/v1/chat/completions", json={**QUESTION, "stream": True})
    *_, text, last, rest = answer.text.split("\n\n")
    assert (answer.status_code, rest) == (200, "")
    assert json.loads(text.removeprefix("data: "))["choices"][0]["delta"] == {"content": "The"}
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"


def test_server_without_a_free_place_says_when_to_come_again(chat):
    with client_of(chat, max_in_flight=0) as client:
        answer = client.post("/v1/chat/completions", json=QUESTION)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_bodies_that_arrive_at_once_are_bounded_together(chat):
    with client_of(chat, max_buffered_bytes=10) as client:
        assert client.post("/v1/chat/completions", json=QUESTION).status_code == 429


def test_answer_ends_where_the_window_of_the_model_ends(chat, monkeypatch):
    request = parse_request(json.dumps({**QUESTION, "max_tokens": 16}).encode())
    num_tokens = chat.prepare(request).num_tokens
    monkeypatch.setattr(chat.model.config.get_text_config(), "max_position_embeddings", num_tokens + 3)
    assert chat.prepare(request).settings.max_new_tokens == 3


def test_switch_of_thinking_is_done_or_refused(chat):
    def prepare(**arguments):
        chat.prepare(parse_request(json.dumps({**QUESTION, "chat_template_kwargs": arguments}).encode()))

    with pytest.raises(RequestError, match="has no switch"):
        prepare(enable_thinking=False)
    stock = chat.processor.chat_template
    try:
        chat.processor.chat_template = "{% if enable_thinking %}{% endif %}" + stock
        prepare(enable_thinking=False)  # as it was trained
        with pytest.raises(RequestError, match="sets enable_thinking to True"):
            prepare(enable_thinking=True)
        with pytest.raises(RequestError, match="does not do `chat_template_kwargs.tokenize`"):
            prepare(tokenize=False)
    finally:
        chat.processor.chat_template = stock


def test_tokenizer_of_generation_is_its_own(chat):
    assert chat._decoding is not chat.processor.tokenizer
    assert chat._decoding.decode([5]) == tiny_processor().tokenizer.decode([5])


def test_client_that_does_not_read_its_answer_loses_its_place(chat, monkeypatch):
    def write(prompt, on_text, cancelled):
        for _ in range(200):
            on_text(0, "a" * 2**16)
        assert cancelled.wait(30)
        return []

    async def take_none(message):
        if message["type"] == "http.response.body":
            await asyncio.sleep(30)

    async def body():
        return {"type": "http.request", "body": content, "more_body": False}

    content, stats = json.dumps({**QUESTION, "stream": True}).encode(), ServerStats()
    monkeypatch.setattr(chat, "answer", write)
    endpoint = ChatEndpoint(chat, RequestLimiter(send_seconds=0.2), stats)
    received = iter([body(), asyncio.sleep(60)])
    scope = {"type": "http", "headers": [(b"content-length", str(len(content)).encode())]}
    asyncio.run(endpoint(scope, lambda: next(received), take_none))
    assert (stats.in_flight, stats.cancelled) == (0, 1)
