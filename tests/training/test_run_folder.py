"""The output folder of a run: nothing that is complete is begun anew or deleted without being asked."""

import json
import subprocess
import sys

import pytest
from tests.training.tiny_training import STAGES, tiny_trainer

from storm_hf.errors import CheckpointError
from storm_hf.pipeline.lock import locked
from storm_hf.pipeline.paths import with_origin
from storm_hf.training.resume import FILE_NAME, claimed_run, learned_settings


SAVED = {"save_strategy": "steps", "save_steps": 1}


@pytest.fixture
def begun(tmp_path):
    """A folder with one complete checkpoint."""
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=1, **SAVED).train()
    return tmp_path


@pytest.mark.parametrize("choice", [None, False, "false"])
def test_run_that_would_begin_anew_over_a_checkpoint_is_refused_and_deletes_nothing(begun, choice):
    trainer = tiny_trainer("answer", "qwen2_5_vl", begun, save_total_limit=1, **SAVED)
    with pytest.raises(CheckpointError, match="holds checkpoint-1 of an earlier run.*`resume_from_checkpoint=True`"):
        trainer.train(resume_from_checkpoint=choice)
    assert (begun / "checkpoint-1" / "trainer_state.json").exists()


def test_run_begins_anew_where_that_is_asked_for(begun):
    trainer = tiny_trainer("answer", "qwen2_5_vl", begun, overwrite_output_dir=True, **SAVED)
    trainer.train()
    assert trainer.state.global_step == 2


def test_folder_without_a_complete_checkpoint_is_begun_anew(begun):
    (begun / "checkpoint-1" / "trainer_state.json").unlink()
    tiny_trainer("answer", "qwen2_5_vl", begun, **SAVED).train()


def test_half_written_checkpoint_of_an_earlier_run_is_removed_and_a_complete_one_stays(begun):
    """`Trainer` counts both for `save_total_limit`."""
    (begun / "checkpoint-9").mkdir()
    (begun / "checkpoint-9" / "model.safetensors").write_bytes(b"half of it")
    (begun / ".README.md.123.unfinished").write_bytes(b"half of it")
    trainer = tiny_trainer("answer", "qwen2_5_vl", begun, **SAVED)
    with claimed_run(trainer.args, is_resumed=True):
        assert [path.name for path in begun.glob("checkpoint-*")] == ["checkpoint-1"]
        assert not list(begun.glob(".*.unfinished"))


def test_checkpoints_of_a_folder_that_no_run_of_this_package_wrote_stay(tmp_path):
    (tmp_path / "checkpoint-9").mkdir()
    with claimed_run(tiny_trainer("answer", "qwen2_5_vl", tmp_path).args, is_resumed=False):
        assert (tmp_path / "checkpoint-9").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_scripts_go_on_by_default(stage, tmp_path):
    assert tiny_trainer(stage, "qwen2_5_vl", tmp_path).args.resume_from_checkpoint == "true"


def test_second_training_in_one_folder_is_refused_while_the_first_one_runs(tmp_path):
    arguments = tiny_trainer("answer", "qwen2_5_vl", tmp_path).args
    with claimed_run(arguments, is_resumed=False):
        code = f"""
from pathlib import Path
from storm_hf.pipeline.lock import locked

with locked(Path({str(tmp_path)!r}) / ".locks/training", "training", wait=False) as is_held:
    print(is_held)
"""
        assert run_python(code) == "False"
    with locked(tmp_path / ".locks/training", "training", wait=False) as is_held:
        assert is_held


def test_training_in_a_folder_that_another_process_holds_is_refused(tmp_path):
    holder = start_holder(tmp_path)
    try:
        with pytest.raises(CheckpointError, match="Another training writes its checkpoints"):
            tiny_trainer("answer", "qwen2_5_vl", tmp_path).train()
    finally:
        holder.communicate("done\n")


@pytest.mark.parametrize("changed", [{"learning_rate": 5e-4}, {"seed": 7}, {"bottleneck_share": 0.5}])
def test_run_that_goes_on_with_other_settings_says_which(begun, changed, caplog):
    tiny_trainer("answer", "qwen2_5_vl", begun, **SAVED, **changed).train(resume_from_checkpoint=True)
    (name,) = changed
    assert f"{name} was" in caplog.text


def test_run_that_goes_on_with_its_own_settings_says_nothing_of_them(begun, caplog):
    tiny_trainer("answer", "qwen2_5_vl", begun, max_steps=1, **SAVED).train(resume_from_checkpoint=True)
    assert "goes on with other settings" not in caplog.text


def test_run_that_goes_on_with_other_rows_or_from_another_model_says_which(begun, caplog):
    """It keeps the weights of the old ones, although the command names the new ones."""

    def begin(model, rows):
        trainer = tiny_trainer("answer", "qwen2_5_vl", begun, max_steps=1, **SAVED)
        trainer.model.config.name_or_path = model
        with_origin(trainer.train_dataset, rows)
        trainer.train(resume_from_checkpoint=True)

    begin("runs/base", "data/one")  # the first run knew neither
    assert "goes on with other settings" not in caplog.text
    begin("runs/base", "data/one")
    assert "goes on with other settings" not in caplog.text
    begin("runs/base", "data/two")
    assert "settings: train_dataset was data/one and is now data/two." in caplog.text
    begin("runs/other", "data/two")
    assert "settings: model was runs/base and is now runs/other." in caplog.text


def test_setting_that_a_run_of_before_did_not_know_had_its_default(begun, caplog):
    known = json.loads((begun / FILE_NAME).read_text())
    (begun / FILE_NAME).write_text(json.dumps({name: known[name] for name in known if "language" not in name}))
    arguments = tiny_trainer("answer", "qwen2_5_vl", begun, max_steps=1, **SAVED).args
    with claimed_run(arguments, is_resumed=True):
        assert "goes on with other settings" not in caplog.text


def test_settings_of_places_and_logs_are_not_those_that_are_learned(tmp_path):
    settings = learned_settings(tiny_trainer("align", "qwen2_5_vl", tmp_path).args)
    assert {"learning_rate", "align_weight", "forcing", "num_latents"} <= settings.keys()
    assert not {"output_dir", "logging_steps", "report_to", "save_steps", "resume_from_checkpoint"} & settings.keys()
    json.dumps(settings)


def run_python(code):
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def start_holder(folder):
    """A process that holds the folder until it is spoken to."""
    code = f"""
from pathlib import Path
from storm_hf.pipeline.lock import locked

with locked(Path({str(folder)!r}) / ".locks/training", "training", wait=False):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder
