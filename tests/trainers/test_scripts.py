"""The scripts and recipes of `trainers/`: each recipe is read, and each script trains as a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.training.tiny_videos import write_thoughts
from transformers import AutoProcessor
from trl import ScriptArguments, TrlParser

from storm_hf import StormAlignConfig, StormAnswerConfig, StormForConditionalGeneration, StormGRPOConfig
from storm_hf.errors import DatasetError
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.training.loading import StormModelConfig


TRAINERS = Path(__file__).parents[2] / "trainers"
CONFIG_OF = {
    "align": StormAlignConfig,
    "answer": StormAnswerConfig,
    "base": StormAnswerConfig,
    "grpo": StormGRPOConfig,
}
RECIPES = sorted(path for stage in CONFIG_OF for path in (TRAINERS / "recipes").glob(f"*_{stage}.yaml"))
TINY = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "true", "--bf16", "false"]
GROUPS = ["--num_generations", "2"]


def stage_of(recipe):
    return recipe.stem.rpartition("_")[2]


def parse(stage, *arguments):
    parser = TrlParser((ScriptArguments, CONFIG_OF[stage], StormModelConfig))
    return parser.parse_args_and_config(list(map(str, arguments)))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_is_read_to_the_last_argument(recipe, tmp_path):
    """An argument that no configuration has would be refused here."""
    cpu = ["--use_cpu", "true", "--bf16", "false"]
    _, training, model = parse(stage_of(recipe), "--config", recipe, *cpu, "--output_dir", tmp_path)
    written = yaml.safe_load(recipe.read_text())
    assert model.model_name_or_path == written["model_name_or_path"]
    assert training.learning_rate == written["learning_rate"]


def test_recipes_of_the_worlds_follow_one_another():
    base, align, answer = (
        yaml.safe_load((TRAINERS / "recipes" / f"worlds_tiny_{stage}.yaml").read_text())
        for stage in ("base", "align", "answer")
    )
    assert align["model_name_or_path"] == base["output_dir"]
    assert answer["model_name_or_path"] == align["output_dir"]
    assert answer["learning_rate"] <= align["learning_rate"] / 10


def test_recipes_of_the_paper_are_the_paper(tmp_path):
    cpu = ["--use_cpu", "true", "--bf16", "false"]
    recipe = TRAINERS / "recipes" / "paper_7b_align.yaml"
    _, training, model = parse("align", "--config", recipe, *cpu, "--output_dir", tmp_path)
    assert (training.target_pooling, training.target_normalize, training.align_loss) == ("sequence", "none", "mse")
    assert (training.align_weight, training.num_latents, training.learning_rate) == (0.1, 8, 1e-5)
    assert (training.per_device_train_batch_size, training.num_train_epochs) == (1, 1)
    assert (model.latent_projector, model.num_frames) == ("identity", 32)


@pytest.mark.parametrize("stage", CONFIG_OF)
def test_script_is_one_screen(stage):
    assert len((TRAINERS / f"{stage}.py").read_text().splitlines()) <= 60


@pytest.fixture(scope="module")
def thoughts(tmp_path_factory):
    return write_thoughts(tmp_path_factory.mktemp("thoughts"))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # raised within TRL 1.16
@pytest.mark.parametrize("stage", CONFIG_OF)
def test_script_saves_a_storm_with_its_processor(stage, qwen_checkpoint, thoughts, tmp_path):
    recipe = [
        "--config",
        TRAINERS / "recipes" / f"worlds_tiny_{stage}.yaml",
        *TINY,
        "--dataloader_pin_memory",
        "false",
    ]
    places = ["--model_name_or_path", qwen_checkpoint, "--dataset_name", thoughts, "--output_dir", tmp_path]
    TargetTrajectory(8, normalize="none").save(tmp_path / "align")
    own = {"align": ["--whitening_rank", "4"], "grpo": [*GROUPS, "--latent_subspace", tmp_path / "align"]}
    script(stage).main(*parse(stage, *recipe, *places, *own.get(stage, [])))
    assert StormForConditionalGeneration.from_pretrained(tmp_path).config.num_latents == {"base": 0, "align": 6}.get(
        stage, 8
    )
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.padding_side == "left"


def script(stage):
    spec = importlib.util.spec_from_file_location(f"trainers_{stage}", TRAINERS / f"{stage}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launch(stage, *arguments):
    """Run a script as `accelerate launch` does."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    config = ["--config_file", TRAINERS / "accelerate" / "single_cpu.yaml", "--num_cpu_threads_per_process", "1"]
    command = [*launcher, *config, TRAINERS / f"{stage}.py", *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | {"CI": "1"})
    assert run.returncode == 0, run.stderr[-3000:]


def last_step(checkpoint):
    return json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]


@pytest.mark.slow
def test_stages_follow_one_another_as_processes(qwen_checkpoint, thoughts, tmp_path):
    recipes = TRAINERS / "recipes"
    common = [*TINY, "--dataset_name", thoughts, "--save_steps", "1"]

    folders = {stage: tmp_path / stage for stage in CONFIG_OF}
    launch(
        "base", "--config", recipes / "worlds_tiny_base.yaml", *common,
        "--model_name_or_path", qwen_checkpoint, "--output_dir", folders["base"],
    )  # fmt: skip
    launch(
        "align", "--config", recipes / "worlds_tiny_align.yaml", *common, "--num_latents", "3", "--whitening_rank", "4",
        "--model_name_or_path", folders["base"], "--output_dir", folders["align"], "--eval_strategy", "steps",
    )  # fmt: skip
    launch(
        "answer", "--config", recipes / "worlds_tiny_answer.yaml", *common,
        "--model_name_or_path", folders["align"], "--output_dir", folders["answer"],
    )  # fmt: skip
    launch(
        "grpo", "--config", recipes / "worlds_tiny_grpo.yaml", *common, *GROUPS, "--latent_subspace", folders["align"],
        "--model_name_or_path", folders["answer"], "--output_dir", folders["grpo"],
    )  # fmt: skip

    configs = {stage: json.loads((folder / "config.json").read_text()) for stage, folder in folders.items()}
    assert {stage: config["num_latents"] for stage, config in configs.items()} == {
        "base": 0,
        "align": 3,
        "answer": 3,
        "grpo": 3,
    }
    assert TargetTrajectory.load(folders["align"]).statistics.rank == 4
    assert TargetTrajectory.load(folders["grpo"]).statistics.rank == 4
    StormForConditionalGeneration.from_pretrained(folders["grpo"])


@pytest.mark.slow
def test_script_resumes_from_the_newest_complete_checkpoint(qwen_checkpoint, thoughts, tmp_path):
    recipe = ["--config", TRAINERS / "recipes" / "worlds_tiny_answer.yaml", *TINY, "--dataset_name", thoughts]
    places = ["--model_name_or_path", qwen_checkpoint, "--output_dir", tmp_path, "--save_steps", "1"]
    launch("answer", *recipe, *places, "--max_steps", "1")
    written = (tmp_path / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns
    (tmp_path / "checkpoint-9").mkdir()
    launch("answer", *recipe, *places, "--resume_from_checkpoint", "true", "--save_total_limit", "5")
    assert last_step(tmp_path / "checkpoint-2") == 2
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns == written, "step 1 was not repeated"


@pytest.mark.parametrize("stage", ["align", "answer"])
@pytest.mark.parametrize(
    ("argument", "split"), [("dataset_test_split", "validation"), ("dataset_train_split", "training")]
)
def test_split_that_is_not_there_is_said_before_anything_is_loaded(stage, argument, split, thoughts, tmp_path):
    places = ["--model_name_or_path", "nowhere", "--dataset_name", thoughts, "--output_dir", tmp_path]
    asked = [f"--{argument}", split, "--eval_strategy", "steps", "--eval_steps", "1", *TINY]
    with pytest.raises(DatasetError, match=f"no split '{split}'; it has train, test. Name one with --{argument}"):
        script(stage).main(*parse(stage, *places, *asked))
