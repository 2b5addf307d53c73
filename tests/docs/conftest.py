import shutil
import warnings
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from tests.builder.tiny_build import clips_and_annotations, tiny_recipe
from tests.tiny import enlarge_weights
from transformers import set_seed

from storm_hf.builder import ThoughtsBuilder
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.model import StormForConditionalGeneration
from storm_hf.target_trajectory import TargetSettings, build_thoughts
from storm_hf.thought_video import WorldRecipe, WorldSplit, render_world
from storm_hf.worlds import make_world


ROOT = Path(__file__).parents[2]
NUM_LATENTS = 6
SPLITS = {"train": WorldSplit(count=24), "validation": WorldSplit(count=4), "test": WorldSplit(depths={0: 2, 6: 6})}
HUB_NAMES = ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct")


@pytest.fixture(scope="session")
def reader(qwen_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who follows the pages: a clone, after `make demo`, with tiny stand-ins for what is large."""
    place = tmp_path_factory.mktemp("reader")
    for name in ("trainers", "datasets_builders", "benchmarks", "tests", "Makefile", "pyproject.toml", ".ci"):
        (place / name).symlink_to(ROOT / name)
    _write_demo(place / "runs" / "demo")
    clips = place / "runs" / "demo" / "data" / "videos" / "test" / "clips"
    deep = sorted(clips.glob("*-d6.mp4"))[0]
    for copy in (place / "clip.mp4", clips / "shuffle-002000576-d6.mp4"):
        shutil.copy(deep, copy)
    (place / "questions.txt").write_text("Which cup holds the ball at the end?\nWhere is it?\n")
    (place / "questions.jsonl").write_text('{"question": "Where is it?", "options": ["red", "blue"]}\n')
    for name in HUB_NAMES:
        shutil.copytree(qwen_checkpoint, place / name)
    annotations = clips_and_annotations(place / "clips", 8)
    ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, place / "data" / "mine")).build()
    (place / "data" / "future-clips").symlink_to(place / "data" / "mine")
    (place / "runs" / "lora_24gb").mkdir()
    (place / "runs" / "lora_24gb" / "storm").symlink_to(place / "runs" / "demo" / "storm")
    _write_adapter(place, "ADAPTER")
    return place


def _write_demo(folder: Path) -> None:
    """Write the checkpoint and the data set that `storm demo` leaves behind."""
    world = make_world("shuffle")
    processor = tiny_processor(world.vocabulary, NUM_LATENTS, frame_pixels=16 * 64)
    set_seed(0)
    model = StormForConditionalGeneration(tiny_config(processor, NUM_LATENTS, latent_scale=0.5)).eval()
    enlarge_weights(model.backbone)
    model.config.trained_on = ["world:shuffle"]
    model.save_pretrained(folder / "storm")
    processor.save_pretrained(folder / "storm")
    examples = render_world(WorldRecipe("shuffle", SPLITS, {}), folder / "data")
    build_thoughts(folder / "data", examples, model, processor, TargetSettings(NUM_LATENTS, rank=8), encoder="tiny")


def _write_adapter(place: Path, name: str) -> None:
    """Write an adapter of the demo's model, which it finds from the reader's folder."""
    model = StormForConditionalGeneration.from_pretrained(place / "runs" / "demo" / "storm")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft asks transformers by an older name
        adapter = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    adapter.peft_config["default"].base_model_name_or_path = "runs/demo/storm"
    adapter.save_pretrained(place / name, save_embedding_layers=False)
