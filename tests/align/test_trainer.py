"""Stage I on real video files: from a data set to a checkpoint with the statistics of its targets."""

import pytest
import torch
from tests.training.tiny_training import logged, tiny_trainer
from tests.training.tiny_videos import load_tiny, write_thoughts

from storm_hf import StormAlignConfig, StormAlignTrainer, StormForConditionalGeneration
from storm_hf.align.targets import saved_trajectory
from storm_hf.errors import LatentError
from storm_hf.target_trajectory.trajectory import TargetTrajectory
from storm_hf.training.loading import load_rows


NUM_LATENTS = 3


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


def align(checkpoint, rows, folder, trajectory=None, **config):
    model, processor = load_tiny(checkpoint, NUM_LATENTS)
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "whitening_rank": 4,
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return StormAlignTrainer(
        model=model,
        args=StormAlignConfig(str(folder), **{**settings, **config}),
        train_dataset=rows,
        processing_class=processor,
        target_trajectory=trajectory,
    )


def test_targets_are_fitted_to_the_training_split_and_saved_with_the_model(qwen_checkpoint, rows, tmp_path):
    trainer = align(qwen_checkpoint, rows, tmp_path)
    trainer.train()
    trainer.save_model()
    saved = TargetTrajectory.load(tmp_path)
    assert (saved.num_latents, saved.normalize, saved.statistics.rank) == (NUM_LATENTS, "whiten", 4)
    features = torch.tensor(rows.with_format("numpy")["thought_features"][:], dtype=torch.float32)
    assert torch.equal(saved(features), trainer.target_trajectory(features))
    again = StormForConditionalGeneration.from_pretrained(tmp_path)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_whitened_targets_have_unit_elements_and_zero_mean(qwen_checkpoint, rows, tmp_path):
    trajectory = align(qwen_checkpoint, rows, tmp_path).target_trajectory
    features = torch.tensor(rows.with_format("numpy")["thought_features"][:], dtype=torch.float32)
    targets = trajectory(features)
    assert abs(targets.pow(2).mean().sqrt() - 1) < 0.02
    assert targets.mean(dim=(0, 1)).abs().max() < 1e-3


def test_targets_of_the_paper_are_the_raw_features(qwen_checkpoint, rows, tmp_path):
    trainer = align(qwen_checkpoint, rows, tmp_path, target_pooling="sequence", target_normalize="none")
    features = torch.tensor(rows.with_format("numpy")["thought_features"][:2], dtype=torch.float32)
    flat = features.reshape(2, NUM_LATENTS, -1, 32).mean(dim=2)  # 24 tokens, eight a slot
    torch.testing.assert_close(trainer.target_trajectory(features), flat)


def test_given_trajectory_is_used_and_kept(qwen_checkpoint, rows, tmp_path):
    given = TargetTrajectory(NUM_LATENTS, normalize="layernorm")
    trainer = align(qwen_checkpoint, rows, tmp_path, trajectory=given)
    assert trainer.data_collator.trajectory is given
    trainer.train()
    assert len(logged(trainer, "align_loss")) == 2


def test_trajectory_of_another_length_is_refused(qwen_checkpoint, rows, tmp_path):
    with pytest.raises(LatentError, match="Expected a target for each of 3 latents, got 2"):
        align(qwen_checkpoint, rows, tmp_path, trajectory=TargetTrajectory(2, normalize="none"))


def test_alignment_is_learned(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, num_rows=2, max_steps=60, learning_rate=3e-3)
    trainer.train()
    assert logged(trainer, "latent_cosine")[0] < 0.3
    assert logged(trainer, "latent_cosine")[-1] > 0.8
    assert logged(trainer, "latent_retrieval")[-1] == 1.0


def test_targets_that_the_builder_saved_are_used_unless_others_are_asked_for(tmp_path, caplog):
    features = torch.randn(64, 3, 2, 32, generator=torch.Generator().manual_seed(0))
    TargetTrajectory.fit([features], num_latents=3, rank=5).save(tmp_path / "data")
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}

    found = saved_trajectory(tmp_path / "data", 3, StormAlignConfig(**arguments))
    assert found is not None
    assert found.statistics.rank == 5
    assert saved_trajectory(tmp_path / "data", 3, StormAlignConfig(whitening_rank=4, **arguments)) is None
    assert saved_trajectory(tmp_path / "data", 3, StormAlignConfig(target_normalize="none", **arguments)) is None
    assert caplog.text == ""
    assert saved_trajectory(tmp_path / "data", 3, StormAlignConfig(target_pooling="sequence", **arguments)) is None
    assert "have the pooling 'temporal', but 'sequence' is asked for" in caplog.text
    assert saved_trajectory(tmp_path / "data", 3, StormAlignConfig(target_layout="concat", **arguments)) is None
    assert (
        saved_trajectory(tmp_path / "data", 3, StormAlignConfig(whitening_statistics="per_slot", **arguments)) is None
    )
    assert saved_trajectory(tmp_path / "elsewhere", 3, StormAlignConfig(**arguments)) is None
