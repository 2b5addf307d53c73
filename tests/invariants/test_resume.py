"""A run that was killed and resumed is the run that was not: every loss, and every bit of the weights.

Each run is a process of its own, since a killed one cannot tell and a resumed one must not remember.
"""

import json
import os
import shutil
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import KINDS
from tests.training.processes import KillAfterStep, run
from tests.training.tiny_training import STAGES, tiny_trainer
from transformers import TrainerCallback

from storm_hf.errors import CheckpointError
from storm_hf.training.resume import StopOnInterrupt, newest_complete_checkpoint


NUM_STEPS, SAVED_EVERY = 6, 2  # an epoch has five steps
BOTH_STAGES = ("qwen2_5_vl", "qwen3_5")  # plain attention, and a recurrent state; the others in Stage II alone
PER_STEP = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "align_loss", "latent_cosine")
RUNS = [
    pytest.param(stage, kind, marks=[pytest.mark.slow] if stage == "align" and kind not in BOTH_STAGES else [])
    for kind in KINDS
    for stage in STAGES
]


class PressCtrlC(TrainerCallback):
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def resumed_trainer(stage: str, kind: str, folder: Path, callbacks: list[TrainerCallback] | None = None) -> Any:
    extra = {"forcing": "scheduled"} if stage == "align" else {}  # what is fed depends on the step
    return tiny_trainer(
        stage,
        kind,
        folder,
        max_steps=NUM_STEPS,
        save_strategy="steps",
        save_steps=SAVED_EVERY,
        lr_scheduler_type="linear",
        callbacks=callbacks,
        **extra,
    )


def train_to_the_end(stage: str, kind: str, folder: Path) -> None:
    trainer = resumed_trainer(stage, kind, folder)
    trainer.train(resume_from_checkpoint=True)
    (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


def train_and_die_inside_an_epoch(stage: str, kind: str, folder: Path) -> None:
    resumed_trainer(stage, kind, folder, [KillAfterStep(3)]).train(resume_from_checkpoint=True)


def train_and_die_inside_a_checkpoint(stage: str, kind: str, folder: Path) -> None:
    """The weights of checkpoint 4 are written, half its optimizer is, and the rest is not."""
    trainer = resumed_trainer(stage, kind, folder)
    save = trainer._save_optimizer_and_scheduler

    def die_at_step_four(checkpoint: str) -> None:
        save(checkpoint)
        if trainer.state.global_step == 4:
            optimizer = Path(checkpoint, "optimizer.pt")
            os.truncate(optimizer, optimizer.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    trainer._save_optimizer_and_scheduler = die_at_step_four
    trainer.train(resume_from_checkpoint=True)


def outcome(folder: Path) -> tuple[list[dict[str, float]], dict[str, str]]:
    """Log of each step, and the hash of each of the last weights."""
    log = [entry for entry in json.loads((folder / "log.json").read_text()) if "loss" in entry]
    weights = load_file(folder / f"checkpoint-{NUM_STEPS}" / "model.safetensors")
    hashes = {name: sha256(weight.numpy().tobytes()).hexdigest() for name, weight in weights.items()}
    return [{name: entry[name] for name in PER_STEP if name in entry} for entry in log], hashes


@pytest.mark.parametrize(("stage", "kind"), RUNS)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(stage, kind, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(train_to_the_end, stage, kind, whole) == 0

    assert run(train_and_die_inside_an_epoch, stage, kind, killed) == -signal.SIGKILL
    assert newest_complete_checkpoint(killed).name == "checkpoint-2"
    assert run(train_and_die_inside_a_checkpoint, stage, kind, killed) == -signal.SIGKILL
    assert (killed / "checkpoint-4" / "model.safetensors").exists()
    assert newest_complete_checkpoint(killed).name == "checkpoint-2"
    assert run(train_to_the_end, stage, kind, killed) == 0

    expected_log, expected_weights = outcome(whole)
    log, weights = outcome(killed)
    assert len(expected_log) == NUM_STEPS
    assert log == expected_log
    assert weights == expected_weights


def test_steps_of_the_killed_run_are_not_all_alike(tmp_path):
    trainer = resumed_trainer("answer", "qwen2_5_vl", tmp_path)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(set(losses)) == NUM_STEPS


def test_ctrl_c_saves_the_running_step_and_the_next_run_goes_on(tmp_path):
    whole = resumed_trainer("answer", "qwen2_5_vl", tmp_path / "whole")
    whole.train()

    before = signal.getsignal(signal.SIGINT)
    stopped = resumed_trainer("answer", "qwen2_5_vl", tmp_path / "stopped", [PressCtrlC(3), StopOnInterrupt()])
    stopped.train(resume_from_checkpoint=True)
    assert stopped.state.global_step == 3
    assert newest_complete_checkpoint(tmp_path / "stopped").name == "checkpoint-3"
    assert signal.getsignal(signal.SIGINT) is before

    resumed = resumed_trainer("answer", "qwen2_5_vl", tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == NUM_STEPS
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint after one step."""
    folder = tmp_path_factory.mktemp("run")
    trainer = tiny_trainer("answer", "llava_onevision", folder, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    return folder / "checkpoint-1"


def resume_with_weights(checkpoint, folder, edit):
    """Resume from a copy of a checkpoint whose weights were edited."""
    broken = shutil.copytree(checkpoint, folder / "checkpoint-1")
    weights = load_file(broken / "model.safetensors")
    edit(weights)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    tiny_trainer("answer", "llava_onevision", folder).train(resume_from_checkpoint=True)


def test_missing_weight_is_an_error_that_names_it(checkpoint, tmp_path):
    name = "model.latent_projector.layers.1.weight"
    with pytest.raises(CheckpointError, match=rf"misses 1 weights \({name}\)"):
        resume_with_weights(checkpoint, tmp_path, lambda weights: weights.pop(name))


def test_unexpected_weight_is_an_error_that_names_it(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds 1 weights \(model.other\)"):
        resume_with_weights(checkpoint, tmp_path, lambda weights: weights.update({"model.other": torch.zeros(1)}))


def test_whole_checkpoint_is_no_error(checkpoint, tmp_path):
    resume_with_weights(checkpoint, tmp_path, lambda weights: None)


def test_checkpoint_with_tied_embeddings_resumes(tmp_path):
    first = tiny_trainer("answer", "internvl", tmp_path, save_strategy="steps", save_steps=1)
    assert first.model.lm_head.weight is first.model.get_input_embeddings().weight
    first.train()
    shutil.rmtree(tmp_path / "checkpoint-2")
    second = tiny_trainer("answer", "internvl", tmp_path)
    second.train(resume_from_checkpoint=True)
    assert second.model.lm_head.weight is second.model.get_input_embeddings().weight
    for name, weight in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], weight), name
