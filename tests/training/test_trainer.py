"""Behaviour that both trainers share: exactly the vision tower is frozen, a run starts as asked, a checkpoint has its card."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_storm
from tests.training.tiny_training import tiny_trainer

from storm_hf.errors import ConfigurationError
from storm_hf.training.trained_weights import freeze_vision


TOWER_AND_MERGER = {
    "qwen2_5_vl": ("model.visual.",),
    "qwen3_vl": ("model.visual.",),
    "qwen3_5": ("model.visual.",),
    "llava_onevision": ("model.vision_tower.", "model.multi_modal_projector.", "model.image_newline"),
    "smolvlm": ("model.vision_model.", "model.connector."),
    "internvl": ("model.vision_tower.", "model.multi_modal_projector."),
}


def test_exactly_the_vision_tower_and_its_merger_are_frozen(kind):
    model = tiny_storm(kind)
    freeze_vision(model)
    prefixes = tuple(f"model.backbone.{name}" for name in TOWER_AND_MERGER[kind])
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(prefixes), name
    for prefix in prefixes:
        assert any(name.startswith(prefix) for name, _ in model.named_parameters()), prefix


def test_freezing_can_be_undone(kind):
    model = tiny_storm(kind)
    freeze_vision(model)
    freeze_vision(model, is_frozen=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("stage", "name"), [("align", "target_trajectory"), ("answer", "attention_mask"), ("answer", "labels")]
)
def test_batch_without_what_the_losses_need_is_refused_by_its_name(stage, name, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path)
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: {key: value for key, value in collate(rows).items() if key != name}
    for use in (trainer.train, lambda: trainer.evaluate(trainer.train_dataset)):
        with pytest.raises(ConfigurationError, match=f"got one without `{name}`.*Add it to what `data_collator`"):
            use()


@pytest.fixture
def one_step_run(tmp_path):
    """A folder with a checkpoint after the first of two steps."""
    tiny_trainer("answer", "qwen2_5_vl", tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    return tmp_path


def steps_logged(trainer):
    return [entry["step"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("choice", "is_resumed"), [(True, True), ("true", True), (False, False), ("false", False), (None, False)]
)
def test_run_resumes_only_when_asked(one_step_run, choice, is_resumed):
    trainer = tiny_trainer("answer", "qwen2_5_vl", one_step_run, overwrite_output_dir=True)
    steps = []
    trainer.training_step, step = lambda *args: steps.append(step(*args)) or steps[-1], trainer.training_step
    trainer.train(resume_from_checkpoint=choice)
    assert len(steps) == (1 if is_resumed else 2)
    assert steps_logged(trainer) == [1, 2]


def test_run_in_a_new_folder_starts_anew_when_asked_to_resume(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path)
    trainer.train(resume_from_checkpoint="true")
    assert trainer.state.global_step == 2


def test_named_checkpoint_is_resumed_from(one_step_run):
    trainer = tiny_trainer("answer", "qwen2_5_vl", one_step_run)
    trainer.train(resume_from_checkpoint=str(one_step_run / "checkpoint-1"))
    assert steps_logged(trainer) == [1, 2]


def test_finished_run_takes_no_further_step_when_it_is_resumed(one_step_run):
    trainer = tiny_trainer("answer", "qwen2_5_vl", one_step_run, max_steps=1)
    steps = []
    trainer.training_step = lambda *args: steps.append(args)
    trainer.train(resume_from_checkpoint=True)
    assert steps == []
    saved = load_file(one_step_run / "checkpoint-1" / "model.safetensors")
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, saved[name]), name


@pytest.mark.parametrize("stage", ["align", "answer"])
def test_checkpoint_holds_code_card_and_tags(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    assert {"modeling_storm.py", "rollout_storm.py", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "checkpoint-1").iterdir()
    }
    assert "auto_map" in json.loads((tmp_path / "checkpoint-1" / "config.json").read_text())
    assert f"- storm-{stage}" in (tmp_path / "README.md").read_text()
