"""A checkpoint that says that it is complete is so for every process; a saved model is replaced by whole files only."""

import errno
import os
import time
from multiprocessing import get_context
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.training.processes import finish_together, leave, meet, start
from tests.training.tiny_training import STAGES, tiny_trainer
from transformers import Trainer, TrainerState

from storm_hf.errors import CheckpointError
from storm_hf.pipeline.lock import locked
from storm_hf.training.resume import newest_complete_checkpoint


SAVED = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
SLOW_SECONDS = 1.0
FORK = get_context("fork")


def save_slowly(rank, folder):
    """Train on two processes, of which the second one takes its time to save its generators."""
    meet(rank, 2, folder / "store")
    save_generators, save_state = Trainer._save_rng_state, TrainerState.save_to_json

    def save_late(trainer, output_dir):
        time.sleep(SLOW_SECONDS * rank)
        save_generators(trainer, output_dir)

    def look_and_save(state, path):
        there = sorted(file.name for file in Path(path).parent.glob("rng_state_*"))
        (folder / "there.txt").write_text(" ".join(there))
        save_state(state, path)

    Trainer._save_rng_state, TrainerState.save_to_json = save_late, look_and_save
    trainer = tiny_trainer("answer", "qwen2_5_vl", folder / "run", **SAVED)
    trainer.train()
    del trainer
    leave()


def test_checkpoint_is_complete_after_every_process_has_saved_its_generators(tmp_path):
    assert finish_together([start(save_slowly, rank, tmp_path) for rank in (0, 1)]) == [0, 0]
    assert (tmp_path / "there.txt").read_text() == "rng_state_0.pth rng_state_1.pth"
    assert newest_complete_checkpoint(tmp_path / "run").name == "checkpoint-1"


def save_alone(rank, folder):
    """Train on two processes, of which the first one alone saves the model, as scripts do."""
    meet(rank, 2, folder / "store")
    trainer = tiny_trainer("answer", "qwen2_5_vl", folder / "run", save_strategy="no", max_steps=1)
    trainer.train()
    if rank == 0:
        trainer.save_model(folder / "model")
    trainer.accelerator.wait_for_everyone()
    del trainer
    leave()


def test_first_process_may_save_the_model_alone(tmp_path):
    assert finish_together([start(save_alone, rank, tmp_path) for rank in (0, 1)]) == [0, 0]
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_model_is_saved_with_nothing_unfinished_beside_it(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, max_steps=1)
    trainer.save_model()
    weights = load_file(tmp_path / "model.safetensors")
    for name, weight in trainer.model.state_dict().items():
        assert name not in weights or weights[name].equal(weight)
    assert {"config.json", "README.md", "modeling_storm.py", "tokenizer.json"} <= set(os.listdir(tmp_path))
    assert not [name for name in os.listdir(tmp_path) if "unfinished" in name]


@pytest.mark.parametrize("stage", STAGES)
def test_checkpoint_of_another_model_is_refused_in_a_sentence(stage, tmp_path):
    tiny_trainer(stage, "qwen2_5_vl", tmp_path, **SAVED).train()
    weights = tmp_path / "checkpoint-1" / "model.safetensors"
    smaller = {name: weight[:-1] if weight.ndim == 2 else weight for name, weight in load_file(weights).items()}
    save_file({name: weight.contiguous() for name, weight in smaller.items()}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        tiny_trainer(stage, "qwen2_5_vl", tmp_path, **SAVED).train(resume_from_checkpoint=True)
    message = str(error.value)
    assert message.startswith(f"The checkpoint {tmp_path}/checkpoint-1 is another model's: ")
    assert message.endswith("Give another `output_dir`, or train the model that it was saved of.")
    assert len(message) < 400 + len(str(tmp_path))
    assert error.value.__suppress_context__


@pytest.mark.parametrize("content", [b"", b"not what was saved"], ids=["cut off", "overwritten"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "scheduler.pt"])
def test_damaged_checkpoint_is_named_with_what_to_do(file, content, tmp_path):
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, **SAVED).train()
    (tmp_path / "checkpoint-1" / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^The checkpoint {tmp_path}/checkpoint-1 is damaged: .* Move it away"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, **SAVED).train(resume_from_checkpoint=True)


def test_intact_file_that_torch_does_not_load_is_not_called_damaged(tmp_path):
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, **SAVED).train()
    torch.save({"state": SimpleNamespace()}, tmp_path / "checkpoint-1" / "optimizer.pt")
    with pytest.raises(UnpicklingError, match="Unsupported global"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, **SAVED).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("has_optimizer", [False, True])
def test_resumption_without_an_optimizer_is_warned_of(has_optimizer, tmp_path, caplog):
    settings = {**SAVED, "save_only_model": not has_optimizer}
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, **settings).train()
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, **settings).train(resume_from_checkpoint=True)
    assert ("checkpoint-1 was saved without its optimizer" in caplog.text) != has_optimizer


def test_run_waits_for_another_one_that_saves_its_model(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=1)
    holder = FORK.Process(target=hold_lock, args=(tmp_path,))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    trainer.save_model()
    assert (tmp_path / "let go").exists()
    holder.join()


def hold_lock(folder):
    with locked(folder / ".locks/model", "model"):
        (folder / "held").touch()
        time.sleep(SLOW_SECONDS)
        (folder / "let go").touch()


def test_saved_model_stays_as_it_is_where_another_one_cannot_be_written(tmp_path, monkeypatch):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=1)
    trainer.save_model()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def fill_disk(folder, **options):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "model.safetensors").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(trainer.model, "save_pretrained", fill_disk)
        with pytest.raises(OSError, match="No space left"):
            trainer.save_model()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    trainer.save_model()
    assert (tmp_path / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert not [name for name in os.listdir(tmp_path) if "unfinished" in name]
