import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import set_seed

from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.model import StormForConditionalGeneration
from storm_hf.video import write_video
from storm_hf.worlds import make_world


README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """What the README assumes: the demo's checkpoint, and a clip."""
    folder = tmp_path_factory.mktemp("readme")
    world = make_world("shuffle")
    processor = tiny_processor(world.vocabulary, num_latents=6, frame_pixels=16 * 64)
    set_seed(0)
    model = StormForConditionalGeneration(tiny_config(processor, num_latents=6))
    model.save_pretrained(folder / "runs/demo/storm")
    processor.save_pretrained(folder / "runs/demo/storm")
    episode = world.episode(0)
    write_video(folder / "clip.mp4", episode.clip, fps=episode.fps)
    return folder


def test_readme_shows_python():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_python_block_of_the_readme_runs(block, demo_folder):
    finished = subprocess.run(
        [sys.executable, "-c", block], cwd=demo_folder, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_two_commands_of_the_readme_are_targets_of_the_makefile():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for command in ("demo", "test"):
        assert f"make {command}" in README.read_text(encoding="utf-8")
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)
