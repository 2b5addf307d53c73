import pytest
import torch
from tests.training.tiny_training import logged
from tests.training.tiny_videos import load_tiny, prompt_encoder, write_thoughts

from storm_hf import StormAnswerConfig, StormAnswerTrainer
from storm_hf.diagnostics import LatentMonitor
from storm_hf.target_trajectory import TargetTrajectory
from storm_hf.training.loading import load_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


def train(checkpoint, rows, folder, watched):
    model, processor = load_tiny(checkpoint, num_latents=3)
    monitor = LatentMonitor(
        list(rows)[:4], prompt_encoder(model, processor), TargetTrajectory(3, normalize="layernorm"), every_logs=2
    )
    arguments = StormAnswerConfig(
        str(folder),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        logging_steps=1,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = StormAnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=processor,
        callbacks=[monitor] if watched else [],
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def watched(qwen_checkpoint, rows, tmp_path_factory):
    return train(qwen_checkpoint, rows, tmp_path_factory.mktemp("watched"), watched=True)


def test_every_second_log_holds_what_the_latents_do(watched):
    logs = [log for log in watched.state.log_history if "loss" in log]
    assert ["monitor_accuracy" in log for log in logs] == [False, True, False, True]
    for name in ("accuracy", "latent_retrieval", "follows_donor"):
        assert 0 <= logs[1][f"monitor_{name}"] <= 1
    assert logs[1]["monitor_latent_retrieval_chance"] == 0.25
    assert -1 <= logs[1]["monitor_latent_cosine"] <= 1


def test_watching_changes_no_number_of_the_training(watched, qwen_checkpoint, rows, tmp_path):
    alone = train(qwen_checkpoint, rows, tmp_path, watched=False)
    assert logged(watched, "loss") == logged(alone, "loss")
    assert logged(watched, "grad_norm") == logged(alone, "grad_norm")
    for ours, theirs in zip(watched.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_latents_that_are_their_targets_are_retrieved(qwen_checkpoint, rows):
    model, processor = load_tiny(qwen_checkpoint, num_latents=3)
    monitor = LatentMonitor(
        list(rows)[:4], prompt_encoder(model, processor), TargetTrajectory(3, normalize="layernorm")
    )
    found = monitor.measure(model)
    assert found["monitor_latent_retrieval"] < 1
    monitor.targets = torch.stack(
        [model(**monitor.prompts([row])).latents[0].detach() for row in monitor.rows]  # what the model itself makes
    )
    found = monitor.measure(model)
    assert found["monitor_latent_retrieval"] == 1
    assert found["monitor_latent_cosine"] > 0.999
