"""A share of rows answers from the latents alone, in both stages."""

import pytest
import torch
from tests.training.tiny_training import logged, tiny_trainer
from torch.testing import assert_close

from storm_hf.answer.config import StormAnswerConfig
from storm_hf.errors import ConfigurationError


STAGES = ("align", "answer")


def rows_of_steps(trainer):
    """Train; what the body was told of each micro-batch."""
    told = []
    trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs.get("latent_bottleneck")), with_kwargs=True
    )
    trainer.train()
    return told


@pytest.mark.parametrize("stage", STAGES)
def test_by_default_no_row_is_narrow(stage, tmp_path):
    assert rows_of_steps(tiny_trainer(stage, "qwen2_5_vl", tmp_path)) == [None, None]


@pytest.mark.parametrize("stage", STAGES)
def test_share_of_rows_is_drawn_anew_at_each_step(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, num_rows=12, max_steps=4, bottleneck_share=0.5)
    told = torch.stack(rows_of_steps(trainer)).float()
    assert len({tuple(rows) for rows in told.tolist()}) > 1
    assert 0 < told.mean() < 1


@pytest.mark.parametrize("stage", STAGES)
def test_share_of_one_takes_every_row(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, bottleneck_share=1.0)
    assert torch.stack(rows_of_steps(trainer)).all()


@pytest.mark.parametrize("stage", STAGES)
def test_evaluation_sees_the_clip(stage, tmp_path):
    """It measures the model as it is used."""
    evaluated = []
    for share in (0.0, 1.0):
        trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path / str(share), bottleneck_share=share)
        evaluated.append(trainer.evaluate(trainer.train_dataset)["eval_loss"])
    assert evaluated[0] == evaluated[1]


@pytest.mark.parametrize("stage", STAGES)
def test_accumulated_batches_equal_one_batch(stage, tmp_path):
    losses = []
    for size in (4, 2, 1):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        trainer = tiny_trainer(
            stage, "qwen2_5_vl", tmp_path / str(size), num_rows=12, max_steps=3, bottleneck_share=0.5, **settings
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    assert_close(losses[2], losses[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_layer_checkpointing_changes_no_number(stage, tmp_path):
    losses = []
    for is_checkpointing in (False, True):
        settings = {"gradient_checkpointing": is_checkpointing, "max_steps": 2, "bottleneck_share": 0.5}
        trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path / str(is_checkpointing), **settings)
        trainer.train()
        losses.append((logged(trainer, "loss"), logged(trainer, "grad_norm")))
    assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)


def test_alignment_still_sees_the_clip(tmp_path):
    """Only the answer is narrow: the loss of the latents is what it was."""
    parts = []
    for share in (0.0, 1.0):
        trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path / str(share), max_steps=1, bottleneck_share=share)
        trainer.train()
        parts.append((logged(trainer, "align_loss"), logged(trainer, "answer_loss")))
    assert_close(parts[0][0], parts[1][0])
    assert parts[0][1] != parts[1][1]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("wrong", [{"bottleneck_share": 1.5}, {"bottleneck_share": -0.1}])
def test_share_out_of_range_is_refused(stage, wrong, tmp_path):
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        tiny_trainer(stage, "qwen2_5_vl", tmp_path, **wrong)


def test_direct_answers_cannot_be_narrow(tmp_path):
    with pytest.raises(ConfigurationError, match="needs latents"):
        StormAnswerConfig(str(tmp_path), num_latents=0, bottleneck_share=0.5)
