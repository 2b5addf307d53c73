import base64
import io
import json
import shutil
import socket

import numpy as np
import pytest
from PIL import Image
from tests.chat_server import completion, serving
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from storm_hf.errors import ConfigurationError, DatasetError, ServerError
from storm_hf.llm import Message, PipelineChat, ServedChat


QUESTION = [Message("What next?")]


def chat_with(server, **settings):
    return ServedChat(url=server.url, name="tiny", **{"retries": 2, **settings})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_question_goes_out_and_the_answer_comes_back():
    with serving("  The ball rolls left.\n") as server:
        assert chat_with(server, temperature=0.5, seed=4).complete(QUESTION) == "The ball rolls left."
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "What next?"}],
            "max_tokens": 512,
            "temperature": 0.5,
            "seed": 4,
        }
    ]


def test_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving("yes") as server:
        chat = chat_with(server, key_variable="MY_KEY")
        chat.complete(QUESTION)
        chat_with(server).complete(QUESTION)
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer secret", None]
    assert "secret" not in f"{chat!r}{chat.settings}"


def test_pictures_stand_before_the_words():
    pixels = np.zeros((900, 1200, 3), dtype=np.uint8)
    pixels[:, 600:] = (255, 0, 0)
    with serving("yes") as server:
        chat_with(server).complete([Message("What next?", (pixels,))])
    picture, words = server.requests[0]["messages"][0]["content"]
    kind, _, data = picture["image_url"]["url"].partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64"
    assert image.size == (768, 576)
    assert image.getpixel((700, 300))[0] > 200 > 50 > image.getpixel((100, 300))[0]
    assert words == {"type": "text", "text": "What next?"}


def test_thinking_is_not_part_of_the_answer():
    with serving("<think>It may\nfall.</think>\n\nIt falls.") as server:
        assert chat_with(server).complete(QUESTION) == "It falls."


@pytest.fixture
def waits(monkeypatch):
    """Recorded waits of the client between retries, without the waiting."""
    waits = []
    monkeypatch.setattr("openai._base_client.time.sleep", waits.append)
    return waits


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_is_asked_again(status, waits):
    with serving((status, {}, "busy"), (status, {"Retry-After": "7"}, "busy"), "at last") as server:
        assert chat_with(server).complete(QUESTION) == "at last"
    assert len(server.requests) == 3
    assert 0 < waits[0] < 2
    assert waits[1] == 7, "the server decides how long to wait"


@pytest.mark.usefixtures("waits")
def test_server_that_stays_busy_is_an_error_that_names_its_url():
    with serving((503, {}, "model is loading")) as server, pytest.raises(ServerError) as caught:
        chat_with(server).complete(QUESTION)
    assert len(server.requests) == 3
    assert server.url in str(caught.value)
    assert "model is loading" in str(caught.value)


def test_refusal_is_not_asked_again():
    with serving((404, {}, "no such model")) as server, pytest.raises(ServerError, match="no such model"):
        chat_with(server).complete(QUESTION)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("waits")
def test_server_that_is_not_there_is_an_error_that_names_its_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ServerError, match=rf"{url}/chat/completions gave no answer in 2 attempts .*refused"):
        ServedChat(url=url, name="tiny", retries=1).complete(QUESTION)


def test_server_that_hangs_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match="timed out"):
            ServedChat(url=url, name="tiny", retries=0, timeout_seconds=0.2).complete(QUESTION)


@pytest.mark.parametrize("body", ["<html>", "{}", '{"choices": []}', '{"choices": [{"message": {"content": 3}}]}'])
def test_other_services_are_an_error(body):
    with serving((200, {}, body)) as server, pytest.raises(ServerError, match=r"completions answers in another way"):
        chat_with(server).complete(QUESTION)
    assert len(server.requests) == 1


def test_answer_that_is_cut_off_is_an_error():
    with serving((200, {}, completion("The ball", "length"))) as server, pytest.raises(DatasetError, match="cut off"):
        chat_with(server).complete(QUESTION)


def test_url_must_be_one():
    with pytest.raises(ConfigurationError, match="https://"):
        ServedChat(url="file:///etc/passwd", name="tiny")


@pytest.fixture(scope="module")
def model(tmp_path_factory, qwen_checkpoint):
    """A language model of two layers with a tokenizer whose template is the simplest."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = AutoTokenizer.from_pretrained(qwen_checkpoint)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, eos_token_id=None, pad_token_id=0, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_local_model_answers_without_repeating_the_question(model):
    chat = PipelineChat(str(model), max_tokens=4)
    answer = chat.complete(QUESTION)
    assert answer == chat.complete(QUESTION)
    assert isinstance(answer, str)
    assert "What next?" not in answer


def test_local_model_says_which_files_answered(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    versions = [PipelineChat(str(folder)).version for folder in (model, copy)]
    (copy / "README.md").write_text("changed")
    assert versions[0] == versions[1] != PipelineChat(str(copy)).version


def test_local_model_sees_pictures(qwen_checkpoint):
    chat = PipelineChat(str(qwen_checkpoint), sees_images=True, max_tokens=3)
    picture = np.zeros((56, 56, 3), dtype=np.uint8)
    assert isinstance(chat.complete([Message("What next?", (picture,))]), str)


def test_local_model_that_sees_nothing_is_shown_nothing(model):
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    with pytest.raises(ConfigurationError, match="sees_images=True"):
        PipelineChat(str(model)).complete([Message("What next?", (picture,))])


def test_settings_are_json():
    assert json.loads(json.dumps(PipelineChat("m").settings)) == {"revision": None, "max_tokens": 512}
