import json
import signal
import time

import pytest
from datasets import Dataset, Features, List, Value
from tests.training.tiny_training import tiny_trainer
from transformers import TrainerCallback

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.demo import arms, demo_recipe
from storm_hf.demo.arms import run_storm, run_text_arm, train, training_arguments, with_reasoning
from storm_hf.demo.folder import DemoFolder


@pytest.fixture
def rows():
    features = Features(
        {"chain_of_thought": Value("string"), "options": List(Value("string")), "answer": Value("string")}
    )
    columns = {
        "chain_of_thought": ["ball at red .", "ball at blue ."],
        "options": [["red", "blue"]] * 2,
        "answer": ["red", "blue"],
    }
    return Dataset.from_dict(columns, features=features)


def test_reasoning_stands_before_the_answer_and_changes_nothing_else(rows):
    reasoned = with_reasoning(rows, "chain_of_thought")
    assert reasoned["answer"] == ["ball at red . red", "ball at blue . blue"]
    assert reasoned.features["answer"] == rows.features["answer"]
    for column in ("chain_of_thought", "options"):
        assert reasoned[column] == rows[column]


def test_direct_arm_gets_the_rows_as_they_are(rows):
    assert with_reasoning(rows, None) is rows


@pytest.mark.parametrize("name", ["align", "answer", "direct", "chain_of_thought", "terse_chain"])
def test_recipe_says_how_long_and_how_fast_an_arm_learns(name, tmp_path):
    recipe = demo_recipe("shuffle", seed=5)
    arguments = training_arguments(StormAnswerConfig, tmp_path, recipe, name)
    assert arguments.max_steps == recipe.trainings[name].num_updates
    assert arguments.learning_rate == recipe.trainings[name].learning_rate
    assert (arguments.per_device_train_batch_size, arguments.seed) == (recipe.batch_size, 5)


def test_finished_arms_are_not_trained_again(tmp_path, monkeypatch):
    folder = DemoFolder(tmp_path)
    monkeypatch.setattr(arms, "train", lambda trainer: pytest.fail("trained again"))
    for name in ("direct", "storm"):
        folder.arm(name).mkdir(parents=True)
        (folder.arm(name) / "results.json").write_text('{"accuracy": 1}')
    run_text_arm(folder, demo_recipe(), "direct", print)
    run_storm(folder, demo_recipe(), print)


class PressCtrlC(TrainerCallback):
    """Sends the signal in the middle of the second step, and takes half a second for it."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            time.sleep(0.5)
            signal.raise_signal(signal.SIGINT)


def test_interrupted_training_goes_on_and_its_time_adds_up(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 100}
    with pytest.raises(KeyboardInterrupt):
        train(tiny_trainer("answer", "qwen2_5_vl", tmp_path, callbacks=[PressCtrlC()], **options))
    assert (tmp_path / "checkpoint-2").is_dir()
    first = json.loads((tmp_path / "train_seconds.json").read_text())
    assert first >= 0.5
    resumed = tiny_trainer("answer", "qwen2_5_vl", tmp_path, **options)
    seconds = train(resumed)
    assert resumed.state.global_step == 4
    assert seconds > first
    assert json.loads((tmp_path / "train_seconds.json").read_text()) == seconds
