"""Choice of the checkpoint to resume from, whatever a killed process left behind."""

import json
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from tests.training.processes import finish_together, leave, meet, start
from tests.training.tiny_training import tiny_trainer
from transformers import TrainerControl, TrainerState, TrainingArguments

from storm_hf.errors import CheckpointError
from storm_hf.training.resume import ExitOnInterrupt, StopOnInterrupt, newest_complete_checkpoint


def write_checkpoint(folder, step, state=None):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def whole_state(step):
    return json.dumps({"global_step": step})


def test_newest_is_the_largest_number_not_the_last_name(tmp_path):
    for step in (8, 10, 9):
        write_checkpoint(tmp_path, step, whole_state(step))
    assert newest_complete_checkpoint(tmp_path).name == "checkpoint-10"


@pytest.mark.parametrize(
    "state",
    [None, "", '{"global_step": 4', '{"log_history": []}', '{"global_step": 2}', "\x00" * 64],
    ids=["missing", "empty", "cut", "without step", "of another step", "zeros"],
)
def test_incomplete_checkpoint_is_passed_over(tmp_path, state):
    write_checkpoint(tmp_path, 2, whole_state(2))
    write_checkpoint(tmp_path, 4, state)
    assert newest_complete_checkpoint(tmp_path).name == "checkpoint-2"


def test_other_folders_are_no_checkpoints(tmp_path):
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "checkpoint-final" / "trainer_state.json").write_text(whole_state(-1) + "x")
    (tmp_path / "checkpoint-7").write_text("a file")
    assert newest_complete_checkpoint(tmp_path) is None


def test_folder_that_does_not_exist_has_none(tmp_path):
    assert newest_complete_checkpoint(tmp_path / "new") is None


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_folder_that_is_no_checkpoint_is_not_resumed_from(tmp_path, name):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path)
    with pytest.raises(CheckpointError, match="Expected a folder with `trainer_state.json`.*Give a `checkpoint-N`"):
        trainer.train(resume_from_checkpoint=str(tmp_path / name))


@pytest.fixture
def running(tmp_path):
    """A callback in the middle of a run, with the control it writes to."""
    callback, control = StopOnInterrupt(), TrainerControl()
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs deaf to it
    callback.on_train_begin(arguments, TrainerState(), control)
    yield callback, lambda hook: getattr(callback, hook)(arguments, TrainerState(), control), control
    signal.signal(signal.SIGINT, before)


def test_step_without_ctrl_c_goes_on(running):
    callback, call, control = running
    call("on_step_end")
    assert not callback.is_interrupted
    assert not control.should_save
    assert not control.should_training_stop


def test_ctrl_c_ends_the_run_after_the_step_with_a_checkpoint(running):
    callback, call, control = running
    signal.raise_signal(signal.SIGINT)
    assert not control.should_training_stop, "the step is finished first"
    call("on_step_end")
    assert callback.is_interrupted
    assert control.should_save
    assert control.should_training_stop


def test_second_ctrl_c_ends_the_run_at_once(running):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_after_the_run_ctrl_c_is_as_it_was(running):
    _, call, _ = running
    call("on_train_end")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_script_ends_with_the_code_of_an_interrupted_program(tmp_path):
    callback, control = ExitOnInterrupt(), TrainerControl()
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    for is_pressed in (False, True):
        callback.on_train_begin(arguments, TrainerState(), control)
        if is_pressed:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(SystemExit, match="130"):
                callback.on_train_end(arguments, TrainerState(), control)
        else:
            callback.on_train_end(arguments, TrainerState(), control)
    signal.signal(signal.SIGINT, before)


def stop_as_rank(rank, folder):
    """Press Ctrl-C in the second of two processes, and ask both whether they stop."""
    meet(rank, 2, folder / "store")
    callback, control = StopOnInterrupt(), TrainerControl()
    arguments = SimpleNamespace(world_size=2, device=torch.device("cpu"))
    callback.on_train_begin(arguments, TrainerState(), control)
    stops = []
    for step in range(2):
        if (step, rank) == (1, 1):
            signal.raise_signal(signal.SIGINT)
        callback.on_step_end(arguments, TrainerState(), control)
        stops.append(control.should_save and control.should_training_stop)
    (folder / f"{rank}.json").write_text(json.dumps(stops))
    leave()


def test_all_processes_stop_after_the_same_step(tmp_path):
    assert finish_together([start(stop_as_rank, rank, tmp_path) for rank in (0, 1)]) == [0, 0]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [[False, True]] * 2


def test_trainer_listens_for_interrupts_by_default_and_only_once(tmp_path):
    def listeners(**given):
        trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, **given)
        return [type(one) for one in trainer.callback_handler.callbacks if isinstance(one, StopOnInterrupt)]

    assert listeners() == [ExitOnInterrupt]
    assert listeners(callbacks=[StopOnInterrupt()]) == [StopOnInterrupt]


def test_training_that_ends_in_an_error_stops_listening(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path)
    trainer.data_collator = lambda rows: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) == before


def test_trainer_in_another_thread_trains_without_listening(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=1)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == 1
