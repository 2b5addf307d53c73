"""A pushed checkpoint loads anywhere: each class, in each environment, says the same about the same clip.

One process for each environment, since importing takes longer than everything else. `LOADING_PYTHON` names another interpreter,
such as one with the oldest or the newest transformers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from tests.hub.checkpoints import write_adapter, write_checkpoint
from tests.hub.conftest import online
from tests.hub.server import serve
from tests.hub.store import Store
from tests.tiny import tiny_qwen_checkpoint
from transformers import AutoProcessor
from transformers.video_utils import load_video

from storm_hf.evaluation import ClipQuestion, ask, read_clip
from storm_hf.hub.checkpoint_push import CheckpointPush
from storm_hf.model import StormForConditionalGeneration
from storm_hf.video import write_video


pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:Use 'content=:DeprecationWarning",  # how the client uploads
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks for it by its old name
    ),
]
NUM_FRAMES = 20  # all are read, by every class as by the quick start of the card
LOADER = Path(__file__).parent / "loader.py"
CLASSES = ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForCausalLM", "pipeline")
ADAPTERS = ("adapter, AutoModelForImageTextToText", "adapter, AutoPeftModelForCausalLM", "adapter, PeftModel")
ENVIRONMENTS = ("installed", "remote code", "offline", "pinned")
INSTALLED_ONLY = {
    "load_checkpoint": "model",
    "adapter, load_checkpoint": "adapter",
    "adapter, quick start": "adapter, quick start",
    "adapter of a plain model, load_checkpoint": "adapter",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("loading")


@pytest.fixture(scope="module")
def clip(workplace):
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 56, 56, 3), np.uint8)
    return write_video(workplace / "clip.mp4", frames, fps=10)


@pytest.fixture(scope="module")
def published(workplace):
    """A Hub with a model, an adapter of it, and a repository that has gone on to another model since its tag."""
    store = Store()
    plain = tiny_qwen_checkpoint(workplace / "plain")
    model = write_checkpoint(workplace / "model", plain)
    other = write_checkpoint(workplace / "other", tiny_qwen_checkpoint(workplace / "other_plain", seed=1))
    adapter = write_adapter(workplace / "adapter", "me/storm", model)
    other_adapter = write_adapter(workplace / "other_adapter", "me/storm", model, seed=1)
    of_plain = write_adapter(workplace / "of_plain", "me/plain", model)
    with serve(store) as url, pytest.MonkeyPatch.context() as patch, online(patch, url, workplace / "hf"):
        api = HfApi(endpoint=url, token="hf_test")
        CheckpointPush(
            model, "me/storm", tag="v1", api=api
        ).run()  # transformers looks for an adapter's base at its revision
        CheckpointPush(model, "me/moved", tag="v1", api=api).run()
        CheckpointPush(other, "me/moved", api=api).run()
        CheckpointPush(adapter, "me/adapter", api=api).run()
        CheckpointPush(adapter, "me/moved-adapter", tag="v1", api=api).run()
        CheckpointPush(other_adapter, "me/moved-adapter", api=api).run()
        CheckpointPush(of_plain, "me/adapter-of-plain", api=api).run()
        api.create_repo("me/plain", private=True)
        api.upload_folder(folder_path=plain, repo_id="me/plain")
        yield url


@pytest.fixture(scope="module")
def expected(published, workplace, clip):
    """Answers of the model and its adapter before they were published."""
    processor = AutoProcessor.from_pretrained(workplace / "model")
    model = StormForConditionalGeneration.from_pretrained(workplace / "model").eval()
    frames, metadata = load_video(str(clip), num_frames=NUM_FRAMES)
    content = [{"type": "video", "video": frames}, {"type": "text", "text": "What happens next?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"do_sample_frames": False, "video_metadata": [metadata]},
    )

    def said(model):
        output = model.generate(**inputs, max_new_tokens=32)
        return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    found = {"model": said(model)}
    model.load_adapter(str(workplace / "adapter"))
    question = ClipQuestion(read_clip(clip, processor), "What happens next?")
    return {**found, "adapter": said(model), "adapter, quick start": ask(model, processor, question).text}


@pytest.fixture(scope="module")
def answers(published, workplace, clip):
    """Answers of each environment. The offline one comes after the one whose cache it has."""
    return {name: load_in(name, published, workplace) for name in ENVIRONMENTS}


def load_in(environment, url, workplace):
    is_pinned, is_installed = environment == "pinned", environment == "installed"
    plan = {
        "model": "me/moved" if is_pinned else "me/storm",
        "adapter": "me/moved-adapter" if is_pinned else "me/adapter",
        "base": "me/storm",
        "adapter_of_plain": "me/adapter-of-plain",
        "revision": "v1" if is_pinned else None,
        "is_installed": is_installed,
        "num_frames": NUM_FRAMES,
    }
    file = workplace / f"{environment}.json"
    file.write_text(json.dumps(plan))
    home = workplace / ("remote code" if environment == "offline" else environment)
    env = os.environ | {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_MODULES_CACHE": str(home / "modules"), "HF_HUB_OFFLINE": str(int(environment == "offline"))}
    python = os.environ.get("LOADING_PYTHON", sys.executable)
    command = [python, str(LOADER), str(file)]
    done = subprocess.run(
        command, env=env, cwd=workplace, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_model_and_adapter_differ_in_what_they_say(expected):
    assert expected["model"].strip()
    assert expected["adapter"].strip()
    assert expected["model"] != expected["adapter"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("cell", CLASSES)
def test_model_says_the_same(answers, expected, environment, cell):
    assert answers[environment][cell] == expected["model"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("cell", ADAPTERS)
def test_adapter_says_the_same(answers, expected, environment, cell):
    assert answers[environment][cell] == expected["adapter"]


@pytest.mark.parametrize("environment", ["installed", "remote code", "offline"])
def test_quick_start_of_the_card_prints_the_answer(answers, expected, environment):
    assert answers[environment]["quick start"] == expected["model"].strip("\n")


@pytest.mark.parametrize(("cell", "wanted"), INSTALLED_ONLY.items())
def test_package_opens_what_needs_it(answers, expected, cell, wanted):
    assert answers["installed"][cell].strip("\n") == expected[wanted].strip("\n")


def test_code_comes_from_the_package_or_from_the_repository(answers):
    modules = {name: found["class"] for name, found in answers.items()}
    assert modules == {"installed": "storm_hf", **dict.fromkeys(ENVIRONMENTS[1:], "transformers_modules")}
