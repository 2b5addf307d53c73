"""K drawn for each training step: the batch of so many latents, whatever the stage, the cut of the batch or a resumption."""

import pytest
import torch
from tests.tiny import KINDS, LATENT, tiny_storm
from tests.training.tiny_training import STAGES, TinyCollator, logged, tiny_rows, tiny_trainer
from torch.testing import assert_close

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.collator import with_fewer_latents


DRAWN = {"min_num_latents": 1, "max_steps": 6, "num_rows": 12}


def trained(stage, folder, kind="qwen2_5_vl", **settings):
    trainer = tiny_trainer(stage, kind, folder, **{**DRAWN, **settings})
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_latents", [1, 2, 3, 4])
def test_cut_batch_is_the_batch_that_was_collated_with_fewer(kind, num_latents):
    rows = tiny_rows(4).to_list()
    whole, fewer = TinyCollator(kind, 3), TinyCollator(kind, min(num_latents, 3))
    cut = with_fewer_latents(whole(rows), num_latents, tiny_storm(kind).config)
    expected = fewer(rows)
    assert cut.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(cut[name], value), name


def test_cut_keeps_the_first_targets():
    batch = TinyCollator("qwen2_5_vl", 3, with_targets=True)(tiny_rows(4).to_list())
    cut = with_fewer_latents(batch, 2, tiny_storm("qwen2_5_vl").config)
    assert torch.equal(cut["target_trajectory"], batch["target_trajectory"][:, :2])


@pytest.mark.parametrize("stage", STAGES)
def test_model_is_trained_with_the_numbers_that_are_logged(stage, tmp_path):
    trainer, seen = tiny_trainer(stage, "qwen2_5_vl", tmp_path, **DRAWN), []
    trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(int((kwargs["input_ids"][0] == LATENT).sum())), with_kwargs=True
    )
    trainer.train()
    assert seen == logged(trainer, "num_latents")
    assert set(seen) <= {1, 2, 3}
    assert len(set(seen)) > 1


@pytest.mark.parametrize("stage", STAGES)
def test_accumulated_batches_equal_one_batch(stage, tmp_path):
    losses, numbers = [], []
    for size in (4, 1):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "max_steps": 3}
        trainer = trained(stage, tmp_path / str(size), **settings)
        losses.append(logged(trainer, "loss"))
        numbers.append(logged(trainer, "num_latents"))
    assert numbers[0] == numbers[1]
    assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_draws_as_the_uninterrupted_one(stage, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 3}
    whole = trained(stage, tmp_path / "whole")
    tiny_trainer(stage, "qwen2_5_vl", tmp_path / "cut", **{**DRAWN, **saved, "max_steps": 3}).train()
    resumed = tiny_trainer(stage, "qwen2_5_vl", tmp_path / "cut", **DRAWN, **saved)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "num_latents") == logged(whole, "num_latents")
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_another_seed_draws_other_numbers(tmp_path):
    first, second = (logged(trained("answer", tmp_path / str(seed), seed=seed), "num_latents") for seed in (0, 1))
    assert first != second


def test_evaluation_thinks_for_all_steps(tmp_path):
    losses = []
    for fewest in (None, 1):
        trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path / str(fewest), min_num_latents=fewest)
        losses.append(trainer.evaluate(trainer.train_dataset)["eval_loss"])
    assert losses[0] == losses[1]


def test_bound_as_the_fewest_changes_nothing(tmp_path):
    runs = [trained("answer", tmp_path / str(fewest), min_num_latents=fewest) for fewest in (None, 3)]
    assert logged(runs[0], "loss") == logged(runs[1], "loss")


def test_more_than_the_bound_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`min_num_latents` must be `num_latents` = 3 or less, got 4"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, min_num_latents=4)


def test_stretches_that_depend_on_the_number_are_refused(tmp_path):
    model = tiny_storm("qwen2_5_vl", num_latents=3, latent_attention="step")
    with pytest.raises(ConfigurationError, match="latent_attention='step'"):
        tiny_trainer("answer", "qwen2_5_vl", tmp_path, model=model, min_num_latents=1)
