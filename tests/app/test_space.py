"""A checkpoint and its Space lie on a Hub; strangers open both, and ask over HTTP."""

import os
import shutil
import socket

import pytest
from huggingface_hub import snapshot_download
from tests.app.browsing import app_page, script_page
from tests.app.test_handlers import QUESTION
from tests.hub.conftest import api, store, url  # noqa: F401

from storm_hf.hub.checkpoint_push import CheckpointPush
from storm_hf.hub.space_push import SpacePush


pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]
MODEL, SPACE = "org/storm", "org/ask-storm"


@pytest.fixture
def stranger_env(url, tmp_path):  # noqa: F811
    """Variables of a process that knows the Hub, and has nothing of it yet."""
    home = tmp_path / "stranger"
    hub = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return os.environ | hub | {"HF_HUB_OFFLINE": "0"}


@pytest.fixture
def pushed(checkpoint, api, tmp_path):  # noqa: F811
    CheckpointPush(shutil.copytree(checkpoint, tmp_path / "storm"), MODEL, api=api).run()
    return MODEL


def assert_answers(address, clip):
    """The page answers, and knows the thoughts that lie beside the weights."""
    from gradio_client import Client, handle_file

    notice, replies = Client(address, verbose=False).predict(
        handle_file(str(clip)), QUESTION, "left, right", api_name="/ask"
    )
    assert "a guess" in notice
    assert "5 forward passes" in replies
    assert "state " in replies


def test_storm_app_opens_a_checkpoint_by_its_name_on_the_hub(pushed, stranger_env, stranger, tmp_path):
    with app_page(pushed, tmp_path / "address", env=stranger_env) as address:
        assert_answers(address, stranger)


def test_space_runs_as_it_lies_on_the_hub(pushed, api, url, stranger_env, stranger, tmp_path):  # noqa: F811
    SpacePush(SPACE, model=pushed, api=api).run()
    files = snapshot_download(SPACE, repo_type="space", local_dir=tmp_path / "space", endpoint=url, token="hf_test")
    port = _free_port()
    env = stranger_env | {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}  # as Spaces set them
    address = f"http://127.0.0.1:{port}/"
    with script_page(tmp_path / "space" / "app.py", address, env=env, cwd=files):
        assert_answers(address, stranger)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
