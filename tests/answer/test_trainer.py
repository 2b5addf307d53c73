"""Stage II on real video files: answers only, whatever else the rows hold."""

import pytest
from tests.training.tiny_training import logged
from tests.training.tiny_videos import load_tiny, write_thoughts

from storm_hf import StormAnswerConfig, StormAnswerTrainer
from storm_hf.inputs.features import cache_video_features
from storm_hf.training.loading import load_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_rows(str(write_thoughts(tmp_path_factory.mktemp("thoughts"))))["train"]


def answer(checkpoint, rows, folder, **config):
    model, processor = load_tiny(checkpoint, num_latents=3)
    settings = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "dataloader_pin_memory": False,
    }
    trainer = StormAnswerTrainer(
        model=model,
        args=StormAnswerConfig(str(folder), **{**settings, **config}),
        train_dataset=rows,
        processing_class=processor,
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def trained(qwen_checkpoint, rows, tmp_path_factory):
    return answer(qwen_checkpoint, rows, tmp_path_factory.mktemp("run"))


def test_losses_are_unchanged_when_the_thought_columns_are_deleted(qwen_checkpoint, rows, trained, tmp_path):
    thoughts = [name for name in rows.column_names if "thought" in name or "caption" in name]
    assert thoughts
    without = answer(qwen_checkpoint, rows.remove_columns(thoughts), tmp_path)
    assert logged(without, "loss") == logged(trained, "loss")
    assert logged(without, "grad_norm") == logged(trained, "grad_norm")


def test_losses_change_with_the_answers(qwen_checkpoint, rows, trained, tmp_path):
    others = rows.remove_columns("answer").add_column("answer", rows["answer"][1:] + rows["answer"][:1])
    assert logged(answer(qwen_checkpoint, others, tmp_path), "loss") != logged(trained, "loss")


def test_training_on_cached_features_is_training_on_pixels(qwen_checkpoint, rows, trained, tmp_path):
    cached = cache_video_features(rows, *load_tiny(qwen_checkpoint, num_latents=3))
    on_features = answer(qwen_checkpoint, cached.with_format("numpy"), tmp_path)
    assert logged(on_features, "loss") == pytest.approx(logged(trained, "loss"), rel=1e-3)


def test_cached_features_train_under_autocast_to_bfloat16(qwen_checkpoint, rows, trained, tmp_path):
    """They lie in float16, which autocast to bfloat16 does not take on a CPU."""
    cached = cache_video_features(rows, *load_tiny(qwen_checkpoint, num_latents=3))
    on_features = answer(qwen_checkpoint, cached.with_format("numpy"), tmp_path, bf16=True)
    assert logged(on_features, "loss") == pytest.approx(logged(trained, "loss"), rel=2e-2)


def test_another_number_of_latents_can_be_trained(qwen_checkpoint, rows, tmp_path):
    trainer = answer(qwen_checkpoint, rows, tmp_path, num_latents=1, max_steps=1)
    batch = trainer.data_collator(rows.to_list()[:1])
    assert (batch["input_ids"] == trainer.model.config.latent_token_id).sum() == 1


def test_columns_of_thought_videos_are_not_even_read(rows, trained):
    kept = set(trained.train_dataset.column_names)
    assert {name for name in rows.column_names if name.startswith("thought_")}
    assert kept == {name for name in rows.column_names if not name.startswith("thought_")}
