"""`storm align`, `storm answer`, `storm grpo` and `storm run` pass every argument on to the script or to accelerate, and end as it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.training.tiny_videos import write_thoughts
from typer.testing import CliRunner

from storm_hf.cli import app
from storm_hf.cli.script import main as run_script
from storm_hf.cli.script_help import documented_arguments
from storm_hf.curriculum import launch
from storm_hf.curriculum.launch import Ending


ROOT = Path(__file__).parents[2]
TRAINERS = ROOT / "trainers"
RECIPES = TRAINERS / "recipes"
STORM = [sys.executable, "-c", "from storm_command import main; main()"]


@pytest.fixture
def started(monkeypatch):
    """Commands that would be run."""
    commands = []
    monkeypatch.setattr(launch, "run_logged", lambda command: commands.append(command) or Ending(3))
    return commands


def storm(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize("stage", ["align", "answer", "grpo"])
def test_arguments_go_to_the_script_or_to_accelerate_in_any_order(started, stage):
    result = storm(
        stage, "--num_processes", 2, "--config", f"worlds_tiny_{stage}", "--learning_rate=1e-4", "--mixed_precision", "bf16",
        "--lora_target_modules", "q_proj", "v_proj", "--accelerate_config", "ddp", "--gradient_accumulation_steps", 4, "--debug", "tpu_metrics_debug",
    )  # fmt: skip
    assert result.exit_code == 3, result.output  # as the script ended
    assert started[0][3:] == [
        "--quiet", "--num_processes", "2", "--mixed_precision", "bf16",
        "--config_file", str(TRAINERS / "accelerate" / "ddp.yaml"),
        "--module", "storm_hf.cli.script", str(TRAINERS / f"{stage}.py"),
        "--config", str(RECIPES / f"worlds_tiny_{stage}.yaml"), "--learning_rate=1e-4",
        "--lora_target_modules", "q_proj", "v_proj", "--gradient_accumulation_steps", "4", "--debug", "tpu_metrics_debug",
    ]  # fmt: skip


def test_file_is_taken_as_a_recipe_or_as_a_configuration_of_accelerate(started, tmp_path):
    mine, how = tmp_path / "mine.yaml", tmp_path / "how.yaml"
    mine.write_text("{learning_rate: 1.0e-4, env: {A: b}}")
    how.touch()
    storm("align", f"--config={mine}", f"--accelerate_config={how}")
    script = ["--module", "storm_hf.cli.script", str(TRAINERS / "align.py")]
    assert started[0][4:] == ["--config_file", str(how), *script, "--config", str(mine)]


@pytest.mark.parametrize("stage", ["align", "run"])
def test_processes_of_scripts_are_asked_for_tracebacks_where_they_are_wanted(stage, started, monkeypatch):
    monkeypatch.setenv("STORM_DEBUG", "")
    monkeypatch.setattr("runpy.run_path", lambda path, run_name: None)
    storm(stage, "--num_processes", 1)
    assert not os.environ["STORM_DEBUG"]
    storm("--debug", stage, "--num_processes", 1)
    assert os.environ["STORM_DEBUG"] == "1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--learning_rte", "1"], "got --learning_rte. Did you mean --learning_rate?"),
        (["--config", "nothing"], "There is no file nothing. These come with storm-hf: lora_24gb_align, "),
        (["--accelerate_config", "zero4"], "There is no file zero4. These come with storm-hf: ddp, "),
        (["--config", "."], ". is a folder, not a YAML file. These come with storm-hf: "),
        (
            ["--learning_rate"],
            "Expected another value of --learning_rate: expected one argument. `storm align --help`",
        ),
        (["--learning_rate", "low"], "Expected another value of --learning_rate: invalid float value: 'low'."),
        (
            ["--question_style", "word"],
            "Expected another value of --question_style: invalid choice: 'word' (choose from",
        ),
        (["worlds_tiny_align"], "got 'worlds_tiny_align' first. A recipe is given as `--config`."),
    ],
    ids=" ".join,
)
def test_what_no_script_knows_is_told_before_anything_is_started(started, arguments, sentence):
    result = storm("align", *arguments)
    assert (result.exit_code, started) == (2, [])
    assert result.stderr.startswith("storm: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("learning_rte: 1", "in mine.yaml, got --learning_rte. Did you mean --learning_rate?"),
        ("encoder: {model: m}", "in mine.yaml, got --encoder."),
        ("- learning_rate", "Expected a mapping of arguments in mine.yaml, got list."),
    ],
)
def test_what_no_script_knows_in_a_recipe_is_told_before_anything_is_started(
    started, text, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    result = storm("align", "--config", "mine.yaml")
    assert (result.exit_code, started) == (2, [])
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["align", "answer", "grpo", "run"])
def test_command_without_arguments_shows_its_help(command, started):
    result = storm(command)
    assert (result.exit_code, started) == (0, [])
    assert "Recipes:" in result.stdout


@pytest.mark.parametrize("command", ["align", "answer", "grpo", "run"])
def test_help_lists_the_places_the_recipes_and_the_arguments_of_storm(command, started):
    result = storm(command, "--config", "x", "--help")
    assert (result.exit_code, started) == (0, [])
    words = result.stdout.split()
    assert {"--config", "--dataset_name", "--accelerate_config", "--num_latents", "--latent_projector"} <= set(words)
    assert ("--align_weight" in words) is (command == "align")
    assert f"worlds_tiny_{command}" in result.stdout.partition("Recipes:")[2]


def test_help_documents_every_argument_of_a_configuration():
    file = ROOT / "src" / "storm_hf" / "align" / "config.py"
    found = {argument.name: argument for argument in documented_arguments(file, "StormAlignConfig")}
    assert found.keys() >= {"align_weight", "forcing", "teacher_noise", "learning_rate"}
    assert (found["align_weight"].default, found["align_weight"].summary) == (
        "3.0",
        "Weight of L_align beside L_answer.",
    )
    assert all(argument.summary[:-1] and "`" not in argument.summary for argument in found.values())


def test_run_starts_its_script_with_accelerate_after_the_dashes(monkeypatch):
    given = []
    monkeypatch.setattr("runpy.run_path", lambda path, run_name: given.append((path, sys.argv, run_name)))
    assert (
        storm(
            "run", "--num_processes", 2, "--config", "worlds_tiny_run", "--max_steps", 1, "--", "--machine_rank", 1
        ).exit_code
        == 0
    )
    recipe = str(RECIPES / "worlds_tiny_run.yaml")
    words = ["storm run", "--config", recipe, "--max_steps", "1", "--", "--num_processes", "2", "--machine_rank", "1"]
    assert given == [(str(TRAINERS / "run.py"), words, "__main__")]


def on_the_cpu(model, dataset, out):
    """Arguments of a short training."""
    return [
        *("--per_device_train_batch_size", "4", "--use_cpu", "true", "--bf16", "false", "--dataloader_pin_memory", "false"),
        *("--model_name_or_path", model, "--dataset_name", dataset, "--output_dir", out, "--save_steps", "1"),
        *("--accelerate_config", "single_cpu", "--num_cpu_threads_per_process", "1", "--report_to", "none"),
    ]  # fmt: skip


@pytest.fixture
def in_process(monkeypatch):
    """Run the script of a stage without a process of its own; returns its exit code."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            run_script()
        return ending.value.code

    return run


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (__file__, "Expected a built data set, a folder or a name on the Hub, got the file "),
        ("data/nope", "There is no folder data/nope, and no data set of that name could be had from the Hub."),
    ],
)
def test_error_of_a_script_is_one_sentence(dataset, sentence, in_process, tmp_path, capsys):
    places = ["--model_name_or_path", "unread", "--dataset_name", dataset, "--output_dir", tmp_path]
    options = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    assert in_process(TRAINERS / "align.py", *places, *options) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"storm align: {sentence}")


def test_exit_code_of_a_script_survives_a_launcher_that_makes_it_one(tmp_path, monkeypatch):
    """As accelerate does."""
    script = tmp_path / "align.py"
    script.write_text("from storm_hf.errors import DatasetError\nraise DatasetError('Expected rows.')")
    launcher = (
        "import subprocess, sys; sys.exit(bool(subprocess.run([sys.executable, '-m', *sys.argv[2:]]).returncode))"
    )
    launch_stage = launch.AccelerateLauncher(tmp_path, command=(sys.executable, "-c", launcher))
    assert launch_stage("align", tmp_path / "arguments.yaml", log := tmp_path / "log.txt") == Ending(2)
    assert log.read_text() == "storm align: Expected rows.\n"


@pytest.mark.slow
def test_command_trains_and_saves(qwen_checkpoint, tmp_path):
    data, out = write_thoughts(tmp_path / "data"), tmp_path / "out"
    command = [
        *STORM,
        "answer",
        "--config",
        "worlds_tiny_answer",
        "--max_steps",
        "1",
        *on_the_cpu(qwen_checkpoint, data, out),
    ]
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ | {"CI": "1"})
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert json.loads((out / "config.json").read_text())["model_type"] == "storm"
    assert "were not passed" not in finished.stderr


@pytest.mark.slow
def test_interrupted_command_saves_and_says_how_to_resume(qwen_checkpoint, tmp_path):
    data, out = write_thoughts(tmp_path / "data"), tmp_path / "out"
    command = [
        *STORM,
        "answer",
        "--config",
        "worlds_tiny_answer",
        "--max_steps",
        "500",
        *on_the_cpu(qwen_checkpoint, data, out),
    ]
    child = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=os.environ | {"CI": "1"})
    while not (out / "checkpoint-2").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, messages = child.communicate(timeout=120)
    assert child.returncode == 130, messages[-3000:]
    assert messages.endswith("storm: Stopped. The same command resumes from the newest checkpoint.\n")
