"""`trainers/run.py`: its recipes are read, its stages train, and it goes on after Ctrl-C as if nothing had happened."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, Features, List, Value
from safetensors.torch import load_file
from tests.training.tiny_videos import write_thoughts
from transformers import AutoProcessor
from trl import ScriptArguments, TrlParser

from storm_hf import StormAlignConfig, StormAnswerConfig, StormForConditionalGeneration, StormGRPOConfig
from storm_hf.curriculum.launch import Ending
from storm_hf.curriculum.reasoning import split_steps
from storm_hf.curriculum.recipe import RunRecipe
from storm_hf.curriculum.run import StagedRun
from storm_hf.training.loading import StormModelConfig, load_rows
from storm_hf.worlds import make_world, write_episodes


TRAINERS = Path(__file__).parents[2] / "trainers"
RECIPES = [TRAINERS / "recipes" / f"worlds_tiny_{name}.yaml" for name in ("run", "coconut")]
CONFIG_OF = {"align": StormAlignConfig, "answer": StormAnswerConfig, "grpo": StormGRPOConfig}
TINY = {
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "bf16": False,
    "save_steps": 1,
    "logging_steps": 1,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
}


def in_this_process(kind, config, log):
    """Run a script as the launcher does, without a process of its own."""
    spec = importlib.util.spec_from_file_location(f"trainers_{kind}", TRAINERS / f"{kind}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    parser = TrlParser((ScriptArguments, CONFIG_OF[kind], StormModelConfig))
    script.main(*parser.parse_args_and_config(["--config", str(config)]))
    return Ending(0)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_of_a_run_is_read_by_the_scripts(path, tmp_path):
    recipe = RunRecipe.read(path, {"output_dir": str(tmp_path), "bf16": False})
    assert recipe.model_name_or_path == "runs/tiny/base"
    run = StagedRun(recipe, in_this_process)
    for number, stage in enumerate(recipe.stages):
        if stage.stage.num_replaced is None:  # others write rows, which need a chain of thought
            parser = TrlParser((ScriptArguments, CONFIG_OF[stage.stage.kind], StormModelConfig))
            _, training, _ = parser.parse_args_and_config(["--config", str(run.prepare(number))])
            assert training.output_dir == str(run.folder_of(stage))


def test_run_of_the_worlds_is_its_two_recipes_one_after_the_other():
    align, answer = RunRecipe.read(RECIPES[0]).stages
    for run in (align, answer):
        script = yaml.safe_load((TRAINERS / "recipes" / f"worlds_tiny_{run.stage.kind}.yaml").read_text())
        assert run.arguments == {
            name: value for name, value in script.items() if name not in ("output_dir", "model_name_or_path")
        }


def test_coconut_recipe_replaces_all_steps_of_its_world():
    stages = [run.stage for run in RunRecipe.read(RECIPES[1]).stages]
    num_steps = make_world("shuffle").num_steps
    assert [stage.num_latents for stage in stages] == list(range(num_steps + 1))
    assert [stage.num_replaced for stage in stages] == [*range(num_steps), None]


def test_script_is_one_screen():
    assert len((TRAINERS / "run.py").read_text().splitlines()) <= 60


@pytest.fixture(scope="module")
def shuffle(tmp_path_factory):
    """A data set of the shuffle world with two steps, and the chain of thought of each row."""
    folder = tmp_path_factory.mktemp("shuffle")
    world = make_world("shuffle", num_cups=2, num_steps=2, min_swaps=0, max_swaps=2)
    files = write_episodes(world, range(4), folder / "videos")
    text = Value("string")
    columns = {"video": text, "question": text, "options": List(text), "answer": text, "chain_of_thought": text}
    rows = []
    for number, file in enumerate(files):
        said = world.describe(number)
        row = {name: getattr(said, name) for name in columns if name != "video"}
        rows.append({**row, "options": list(said.options), "video": str(file.clip_path)})
    path = folder / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    Dataset.from_list(rows, features=Features(columns)).to_parquet(path)
    return folder


@pytest.mark.slow
def test_coconut_stages_train_on_what_latents_have_not_replaced(qwen_checkpoint, shuffle, tmp_path):
    content = {
        **TINY,
        "model_name_or_path": str(qwen_checkpoint),
        "dataset_name": str(shuffle),
        "output_dir": str(tmp_path),
        "max_steps": 1,
        "report_to": "none",
        "stages": {"coconut": {"num_steps": 2, "latents_per_step": 2}},
    }
    recipe = RunRecipe.from_dict(content)
    last = StagedRun(recipe, in_this_process).run()

    before = load_rows(str(shuffle))["train"]
    trained_on = []
    for run in recipe.stages:
        folder = tmp_path / run.name
        arguments = yaml.safe_load((folder / "arguments.yaml").read_text())
        trained_on.append(load_rows(arguments["dataset_name"])["train"]["answer"])
        config = json.loads((folder / "config.json").read_text())
        assert config["num_latents"] == run.stage.num_latents == arguments["num_latents"]
    steps = [split_steps(chain) for chain in before["chain_of_thought"]]
    answers = before["answer"]
    assert trained_on == [
        [f"{first} {second} {answer}" for (first, second), answer in zip(steps, answers, strict=True)],
        [f"{second} {answer}" for (_, second), answer in zip(steps, answers, strict=True)],
        answers,
    ]
    assert StormForConditionalGeneration.from_pretrained(last).config.num_latents == 4
    prompt = [{"role": "user", "content": "Where?"}]
    written = AutoProcessor.from_pretrained(last).apply_chat_template(prompt, add_generation_prompt=True)
    assert written.count("<|latent|>") == 4


def tiny_run(checkpoint, folder):
    """Settings of a run on tiny thoughts, which are written beside it."""
    places = {"dataset_name": str(write_thoughts(folder / "data")), "output_dir": str(folder / "run")}
    return {**TINY, "model_name_or_path": str(checkpoint), **places, "report_to": "none"}


@pytest.mark.slow
def test_growing_latents_share_the_targets_of_the_data_set(qwen_checkpoint, tmp_path):
    content = {
        **tiny_run(qwen_checkpoint, tmp_path),
        "max_steps": 1,
        "align": {"whitening_rank": 4},
        "stages": {"growing": {"num_latents": [2, 3]}},
    }
    StagedRun(RunRecipe.from_dict(content), in_this_process).run()
    folders = [tmp_path / "run" / name for name in ("1-align", "2-align", "3-answer")]
    assert [json.loads((folder / "config.json").read_text())["num_latents"] for folder in folders] == [2, 3, 3]
    assert all((folder / "whitening.safetensors").exists() for folder in folders[:2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # TRL's
def test_reinforcement_is_the_third_stage_of_a_run(qwen_checkpoint, tmp_path):
    content = {
        **tiny_run(qwen_checkpoint, tmp_path),
        "num_latents": 3,
        "max_steps": 1,
        "align": {"whitening_rank": 4},
        "grpo": {"num_generations": 4, "max_completion_length": 2, "gradient_checkpointing": False},
        "stages": [{"kind": "align"}, {"kind": "answer"}, {"kind": "grpo"}],
    }
    last = StagedRun(RunRecipe.from_dict(content), in_this_process).run()
    assert last == tmp_path / "run" / "3-grpo"
    assert json.loads((last / "finished.json").read_text())["global_step"] == 1
    assert StormForConditionalGeneration.from_pretrained(last).config.num_latents == 3
    statistics = load_file(last / "whitening.safetensors"), load_file(tmp_path / "run/1-align/whitening.safetensors")
    assert statistics[0].keys() == statistics[1].keys()
    assert all(value.equal(statistics[1][name]) for name, value in statistics[0].items())


def start_run(recipe):
    launcher = ["--config_file", TRAINERS / "accelerate" / "single_cpu.yaml", "--num_cpu_threads_per_process", "1"]
    command = [sys.executable, TRAINERS / "run.py", "--config", recipe, "--", *launcher]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CI": "1"},
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_interrupted_run_ends_in_the_weights_of_the_two_scripts(qwen_checkpoint, tmp_path):
    content = {
        **tiny_run(qwen_checkpoint, tmp_path),
        "num_latents": 3,
        "stages": [{"kind": "align", "max_steps": 2, "whitening_rank": 4}, {"kind": "answer", "max_steps": 40}],
    }
    recipe = tmp_path / "run.yaml"
    recipe.write_text(yaml.safe_dump(content))
    align, answer = tmp_path / "run" / "1-align", tmp_path / "run" / "2-answer"

    first = start_run(recipe)
    wait_for(answer / "checkpoint-2" / "trainer_state.json", first)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
    assert "Interrupted. The same command goes on where it stopped." in err
    assert "Traceback" not in err
    assert (align / "finished.json").exists()
    assert not (answer / "finished.json").exists()
    assert not (answer / "model.safetensors").exists(), "no unfinished model is saved"
    aligned = (align / "model.safetensors").stat().st_mtime_ns
    done = (answer / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns

    second = start_run(recipe)
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert "1-align is finished." in err
    assert (align / "model.safetensors").stat().st_mtime_ns == aligned
    assert (answer / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns == done, "step 1 was not repeated"
    assert json.loads((answer / "finished.json").read_text())["global_step"] == 40

    by_hand(content, tmp_path)
    expected = load_file(tmp_path / "answer" / "model.safetensors")
    weights = load_file(answer / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        assert weights[name].equal(weight), name


def by_hand(content, folder):
    """Run the two scripts one after the other, each with a recipe of its own."""
    common = {name: value for name, value in content.items() if name != "stages"}
    start = common["model_name_or_path"]
    for stage in content["stages"]:
        own = {name: value for name, value in stage.items() if name != "kind"}
        output = str(folder / stage["kind"])
        config = folder / f"{stage['kind']}.yaml"
        config.write_text(yaml.safe_dump({**common, **own, "model_name_or_path": start, "output_dir": output}))
        in_this_process(stage["kind"], config, None)
        start = output


@pytest.mark.slow
def test_failing_stage_ends_the_run_with_one_sentence(tmp_path):
    recipe = tmp_path / "run.yaml"
    content = {
        "model_name_or_path": str(tmp_path / "nothing"),
        "dataset_name": str(tmp_path / "nothing"),
        "output_dir": str(tmp_path / "run"),
        "stages": "two_stages",
    }
    recipe.write_text(yaml.safe_dump(content))
    run = start_run(recipe)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2
    log = tmp_path / "run" / "1-align" / "log.txt"
    assert err.splitlines()[-1] == f"run.py: 1-align failed with exit code 2; see {log}."
    assert f"storm align: There is no folder {tmp_path / 'nothing'}, and no data set of that name" in log.read_text()
    assert "Traceback" not in log.read_text()
