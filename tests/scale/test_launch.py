"""The commands that a user types, on two processes of a processor: Stage I and Stage II follow one another under ZeRO-3."""

import json
import sys
from statistics import mean

import pytest
import torch
import yaml
from tests.scale.launch import CONFIGS, ROOT, run
from tests.training.tiny_videos import write_thoughts
from transformers import AutoModelForImageTextToText

from storm_hf import StormForConditionalGeneration
from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.demo.backbone import tiny_config, tiny_processor
from storm_hf.worlds import make_world


pytestmark = [pytest.mark.slow, pytest.mark.scale]
NUM_LATENTS, NUM_STEPS = 6, 12


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The backbone of `storm demo`, untrained."""
    folder = tmp_path_factory.mktemp("base")
    processor = tiny_processor(make_world("shuffle").vocabulary, NUM_LATENTS, frame_pixels=16 * 64)
    StormForConditionalGeneration(tiny_config(processor, NUM_LATENTS)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(base, tmp_path_factory):
    """A small data set of the shuffle world, as the builder's script leaves it."""
    folder = tmp_path_factory.mktemp("shuffle")
    recipe = yaml.safe_load((ROOT / "datasets_builders" / "recipes" / "shuffle_tiny.yaml").read_text())
    recipe["world"]["splits"] = {"train": {"count": 48}, "test": {"count": 4}}
    recipe["targets"]["rank"] = 8
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ThoughtsBuilder(
        ThoughtsRecipe.read(folder / "recipe.yaml", output_dir=str(folder / "data"), encoder_model=str(base))
    ).build()
    return folder / "data"


def train(stage, model, dataset, output, num_steps=NUM_STEPS, **settings):
    """`accelerate launch` with the recipe of `worlds_tiny`, shortened; returns the losses."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "zero3.yaml")]
    recipe = [str(ROOT / "trainers" / f"{stage}.py"), "--config", f"trainers/recipes/worlds_tiny_{stage}.yaml"]
    places = ["--model_name_or_path", str(model), "--dataset_name", str(dataset), "--output_dir", str(output)]
    short = {"max_steps": num_steps, "save_steps": num_steps, "per_device_train_batch_size": 8, "warmup_steps": 1}
    settings = {**short, "logging_steps": 1, "learning_rate": "1e-3", **settings}
    given = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    child = run([*launcher, *recipe, *places, *given])
    assert child.returncode == 0, child.stdout[-4000:]
    state = json.loads((output / f"checkpoint-{num_steps}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_both_stages_learn_under_zero3_and_leave_a_plain_checkpoint(base, dataset, tmp_path):
    for stage, model in (("align", base), ("answer", tmp_path / "align")):
        losses = train(stage, model, dataset, tmp_path / stage)
        assert len(losses) == NUM_STEPS
        assert mean(losses[-3:]) < 0.9 * mean(losses[:3])
    storm = AutoModelForImageTextToText.from_pretrained(tmp_path / "answer")
    assert storm.config.num_latents == NUM_LATENTS
    assert all(parameter.isfinite().all() for parameter in storm.parameters())


def test_plain_checkpoint_becomes_the_same_storm_under_zero3(qwen_checkpoint, tmp_path):
    """Its weights lie in pieces when the scale of its embeddings is measured."""
    dataset = write_thoughts(tmp_path / "thoughts")
    settings = {"per_device_train_batch_size": 2, "whitening_rank": 4, "learning_rate": 0}
    losses = train("align", qwen_checkpoint, dataset, tmp_path / "storm", num_steps=1, **settings)
    assert losses[0] > 0  # not a number is logged as zero
    expected = StormForConditionalGeneration.from_backbone(qwen_checkpoint, NUM_LATENTS)
    trained = StormForConditionalGeneration.from_pretrained(tmp_path / "storm")
    assert trained.config.latent_scale == pytest.approx(expected.config.latent_scale)
    for name, weight in expected.state_dict().items():
        if "latent_projector" not in name:  # drawn anew
            assert torch.equal(trained.state_dict()[name], weight), name
