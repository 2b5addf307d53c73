import json
import signal
import time

import pytest
from datasets import Dataset
from tests.training.tiny_training import tiny_trainer
from transformers import TrainerCallback

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.demo import data, demo_recipe, demo_variants, training
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.training import evaluation_tasks, run_variant, train, train_seconds, training_arguments


@pytest.fixture
def rows(monkeypatch):
    columns = {"chain_of_thought": ["ball at red .", "ball at blue ."], "answer": ["red", "blue"]}
    rows = Dataset.from_dict({**columns, "options": [["red", "blue"]] * 2})
    monkeypatch.setattr(data, "dataset", lambda folder, split, with_thoughts: rows)
    return rows


def rows_of(name):
    recipe = demo_recipe()
    return training._rows(demo_variants(recipe)[name], [(DemoFolder("unread"), recipe)])


def test_chain_stands_before_the_answer_and_changes_nothing_else(rows):
    written = rows_of("chain_of_thought")
    assert written["answer"] == ["ball at red . red", "ball at blue . blue"]
    assert written.features == rows.features
    assert written.remove_columns("answer").to_list() == rows.remove_columns("answer").to_list()


def test_variant_without_a_chain_gets_the_rows_as_they_are(rows):
    assert rows_of("direct").to_list() == rows_of("storm").to_list() == rows.to_list()


@pytest.mark.parametrize("name", ["base", "align", "storm", "direct", "chain_of_thought", "terse_chain"])
def test_variant_is_trained_as_long_and_as_fast_as_its_row_says(name, tmp_path):
    recipe = demo_recipe("shuffle", seed=5)
    row = demo_variants(recipe)[name].training
    arguments = training_arguments(StormAnswerConfig, tmp_path, recipe, row)
    assert (arguments.max_steps, arguments.learning_rate) == (row.num_updates, row.learning_rate)
    assert (arguments.per_device_train_batch_size, arguments.seed) == (recipe.batch_size, 5)


def test_finished_variants_are_not_trained_again(tmp_path, monkeypatch):
    folder, recipe = DemoFolder(tmp_path), demo_recipe()
    monkeypatch.setattr(training, "train", lambda trainer: pytest.fail("trained again"))
    for name in ("direct", "storm"):
        folder.variant(name).mkdir(parents=True)
        (folder.variant(name) / "results.json").write_text('{"accuracy": 1}')
        run_variant(folder, recipe, demo_variants(recipe)[name], print)


def test_variant_that_another_one_starts_from_is_trained_first_and_its_latents_are_left_alone(tmp_path, monkeypatch):
    folder, recipe, calls = DemoFolder(tmp_path), demo_recipe(), []
    monkeypatch.setattr(training, "train_variant", lambda folder, recipe, variant, report: calls.append(variant.name))
    monkeypatch.setattr(
        training, "write_results", lambda *args, with_interventions: calls.append((args[-1].name, with_interventions))
    )
    run_variant(folder, recipe, demo_variants(recipe)["storm"], print)
    assert calls == ["align", "storm", ("align", False), ("storm", True)]


def test_variant_whose_test_was_stopped_is_tested_without_another_training(tmp_path, monkeypatch):
    folder, recipe, calls = DemoFolder(tmp_path), demo_recipe(), []
    monkeypatch.setattr(training, "train", lambda trainer: pytest.fail("trained again"))
    monkeypatch.setattr(training, "write_results", lambda *args, with_interventions: calls.append(args[-1].name))
    folder.variant("direct").mkdir(parents=True)
    folder.training_record("direct").write_text('{"num_parameters": 1}')
    run_variant(folder, recipe, demo_variants(recipe)["direct"], print)
    assert calls == ["direct"]


def test_every_variant_is_evaluated_once_and_the_one_with_the_most_to_answer_first(tmp_path):
    recipe = demo_recipe()
    variants = [demo_variants(recipe)[name] for name in recipe.variants]
    tasks = evaluation_tasks(DemoFolder(tmp_path), recipe, variants)
    names = ["storm", "direct", "chain_of_thought", "align", "terse_chain"]
    assert [task.name for task in tasks] == [f"evaluate_{name}" for name in names]
    assert [task.args[-1] for task in tasks] == [True, False, False, False, False]


def test_time_of_a_training_holds_that_of_the_variant_it_starts_from(tmp_path):
    folder, storm = DemoFolder(tmp_path), demo_variants(demo_recipe())["storm"]
    for name, seconds in (("align", 5.5), ("storm", 2.25)):
        folder.variant(name).mkdir(parents=True)
        (folder.variant(name) / "train_seconds.json").write_text(json.dumps(seconds))
    assert train_seconds(folder, storm) == 7.75
    assert train_seconds(folder, storm.start) == 5.5


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
    train(resumed)
    assert resumed.state.global_step == 4
    assert json.loads((tmp_path / "train_seconds.json").read_text()) > first
