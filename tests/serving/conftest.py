import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from openai import OpenAI
from tests.tiny import tiny_processor
from tests.video import clips
from transformers import PreTrainedTokenizerBase

from storm_hf.model import StormForConditionalGeneration, add_latent_tokens


KEY = "a key"
NUM_LATENTS = 3
MAX_VIDEO_SECONDS = 20
BODY_SECONDS = 2


def data_uri(path: Path, kind: str = "video/mp4") -> str:
    """Write a file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def in_parts(*parts: dict, question: str = "?") -> list[dict]:
    """One message of a user: some files and a question."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


@dataclass(frozen=True)
class Served:
    """A server process and a real client of it."""

    url: str
    client: OpenAI
    process_id: int
    log: Path


@pytest.fixture(scope="package")
def storm_folder(qwen_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny STORM with its processor."""
    folder = tmp_path_factory.mktemp("served") / "tiny-storm"
    torch.manual_seed(0)  # the projector is new
    model = StormForConditionalGeneration.from_backbone(str(qwen_checkpoint), num_latents=NUM_LATENTS)
    model.save_pretrained(folder)
    add_latent_tokens(tiny_processor(), NUM_LATENTS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def storm_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of the tiny STORM."""
    return add_latent_tokens(tiny_processor(), NUM_LATENTS).tokenizer


@pytest.fixture(scope="package")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of video."""
    return clips.encode(tmp_path_factory.mktemp("clips") / "clip.mp4", clips.numbered_frames(8), fps=2)


@pytest.fixture(scope="package")
def served(storm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`storm serve` in a process of its own."""
    command = [sys.executable, "-c", "from storm_hf.cli import main; main()", "serve", "--model", str(storm_folder)]
    command += ["--port", "0", "--device", "cpu", "--max-new-tokens", "16"]
    command += [
        "--max-video-seconds",
        str(MAX_VIDEO_SECONDS),
        "--max-file-mib",
        "1",
        "--body-seconds",
        str(BODY_SECONDS),
    ]
    environment = {**os.environ, "STORM_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    words = tmp_path_factory.mktemp("log") / "stderr"
    with words.open("w") as stderr, subprocess.Popen(command, stderr=stderr, env=environment) as process:
        url = wait_for_address(process, words)
        with OpenAI(base_url=f"{url}v1", api_key=KEY, max_retries=0, timeout=120) as client:
            yield Served(url, client, process.pid, words)
        process.terminate()


def wait_for_address(process: subprocess.Popen[bytes], words: Path) -> str:
    """Read what the process says until it says where it answers."""
    end = time.monotonic() + 180  # it imports torch and transformers first
    while not (found := re.search(r"answers at (http://\S+)", words.read_text())):
        assert process.poll() is None, words.read_text()
        assert time.monotonic() < end, "the server has not said where it answers"
        time.sleep(0.1)
    return found[1]
