"""Effects of a training step: the weights that move, the log, and that a batch is a batch however it is cut."""

import json
import weakref

import pytest
import torch
from tests.tiny import tiny_storm
from tests.training.processes import finish_together, meet, start
from tests.training.tiny_training import NUM_LATENTS, STAGES, TinyCollator, logged, tiny_trainer
from torch.testing import assert_close


STAGE_I_METRICS = {
    "answer_loss",
    "align_loss",
    "latent_cosine",
    "latent_cosine_baseline",
    "latent_retrieval",
    "latent_retrieval_chance",
}


@pytest.mark.parametrize("stage", STAGES)
def test_two_steps_change_every_trainable_parameter_and_no_frozen_one(stage, kind, tmp_path):
    trainer = tiny_trainer(stage, kind, tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    parameters = dict(trainer.model.named_parameters())
    changed = {name for name, parameter in parameters.items() if not torch.equal(parameter, before[name])}
    assert changed == {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert any("latent_projector" in name for name in changed)
    assert parameters.keys() - changed, "the vision tower is frozen"


@pytest.mark.parametrize("stage", STAGES)
def test_vision_tower_trains_when_it_is_not_frozen(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, freeze_vision=False)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    unchanged = {name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])}
    assert unchanged == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_step_logs_its_parts(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path)
    trainer.train()
    expected = {"loss", "grad_norm", "mean_token_accuracy"} | (STAGE_I_METRICS if stage == "align" else set())
    steps = trainer.state.log_history[:-1]  # the last entry is the summary of the run
    assert len(steps) == 2
    for step in steps:
        assert expected <= step.keys()


def test_logged_parts_of_stage_one_add_up_to_its_loss(tmp_path):
    trainer = tiny_trainer("align", "internvl", tmp_path, align_weight=2.0, gradient_accumulation_steps=2)
    trainer.train()
    parts = zip(logged(trainer, "answer_loss"), logged(trainer, "align_loss"), strict=True)
    assert_close(logged(trainer, "loss"), [answer + 2.0 * align for answer, align in parts])


def test_retrieval_chance_is_one_over_the_batch(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, per_device_train_batch_size=5)
    trainer.train()
    assert_close(logged(trainer, "latent_retrieval_chance"), [0.2, 0.2])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_accumulated_batches_equal_one_batch(stage, batch_size, tmp_path):
    runs = [
        tiny_trainer(
            stage,
            "qwen2_5_vl",
            tmp_path,
            num_rows=8,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
        )
        for size in (4, batch_size)
    ]
    for trainer in runs:
        trainer.train()
    whole, accumulated = runs
    assert_close(logged(accumulated, "loss"), logged(whole, "loss"), rtol=1e-5, atol=1e-5)
    assert_close(logged(accumulated, "grad_norm"), logged(whole, "grad_norm"), rtol=1e-4, atol=1e-5)


CONTRAST = {"align": {"align_loss": "infonce"}}  # whose negatives are on both processes
NAMES_OF_TOGETHER = ("loss", "grad_norm", "latent_cosine", "latent_cosine_baseline", "latent_retrieval")


def train_as_rank(rank, stage, share, folder):
    """One of two processes that train together, each on half of a batch of four."""
    meet(rank, 2, folder / "meeting-point")
    trainer = tiny_trainer(stage, "qwen2_5_vl", folder, num_rows=8, bottleneck_share=share, **CONTRAST.get(stage, {}))
    trainer.train()
    if rank == 0:
        (folder / "log.json").write_text(json.dumps({name: logged(trainer, name) for name in NAMES_OF_TOGETHER}))
    wrapped = weakref.ref(trainer.model_wrapped)
    trainer.end()
    assert wrapped() is None, "what holds the process group goes before the group"


@pytest.mark.parametrize(("stage", "share"), [("align", 0.0), ("answer", 0.0), ("answer", 0.5)])
def test_two_processes_equal_one(stage, share, tmp_path):
    assert finish_together([start(train_as_rank, rank, stage, share, tmp_path) for rank in (0, 1)]) == [0, 0]

    settings = {"num_rows": 8, "per_device_train_batch_size": 4, "bottleneck_share": share, **CONTRAST.get(stage, {})}
    alone = tiny_trainer(stage, "qwen2_5_vl", tmp_path, **settings)
    alone.train()
    together = json.loads((tmp_path / "log.json").read_text())
    assert_close(together["loss"], logged(alone, "loss"), rtol=1e-5, atol=1e-5)
    for name in NAMES_OF_TOGETHER[1:]:
        assert_close(together[name], logged(alone, name), rtol=1e-4, atol=1e-5)


def test_answers_of_the_tiny_rows_differ_in_length():
    labels = TinyCollator("qwen2_5_vl")([{"number": number} for number in range(4)])["labels"]
    assert len(set((labels != -100).sum(dim=1).tolist())) > 1


@pytest.mark.parametrize(("loss", "reduction"), [("cosine_mse", "mean"), ("mse", "sum"), ("cosine", "mean")])
def test_loss_of_stage_one_is_what_plain_torch_computes(kind, loss, reduction, tmp_path):
    trainer = tiny_trainer(
        "align", kind, tmp_path, max_steps=1, num_rows=2, align_weight=0.7, align_loss=loss, align_reduction=reduction
    )
    batch = trainer.data_collator(trainer.train_dataset.select([0, 1]).to_list())
    expected = plain_stage_one_loss(tiny_storm(kind, num_latents=NUM_LATENTS), batch, loss, reduction)
    trainer.train()
    assert_close(logged(trainer, "loss")[0], expected.item(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def plain_stage_one_loss(model, batch, loss, reduction):
    targets, labels = batch.pop("target_trajectory"), batch.pop("labels")
    output = model(**batch, forced_latents=targets)
    log_probabilities = output.logits[:, :-1].log_softmax(dim=-1)
    is_answer = labels[:, 1:] != -100
    of_answer = log_probabilities.gather(2, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    answer_loss = -of_answer[is_answer].mean()
    squared = (output.latents - targets).pow(2)
    squared = squared.sum(dim=-1).mean() if reduction == "sum" else squared.mean()
    cosine = (1 - torch.cosine_similarity(output.latents, targets, dim=-1)).mean()
    parts = {"mse": (squared,), "cosine": (cosine,), "cosine_mse": (cosine, squared)}[loss]
    return answer_loss + 0.7 * sum(parts)


def losses_by_forcing(tmp_path, **config):
    losses = {}
    for forcing in ("teacher", "rollout", "scheduled"):
        trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path / forcing, forcing=forcing, max_steps=3, **config)
        trainer.train()
        losses[forcing] = logged(trainer, "answer_loss")
    return losses


def test_scheduled_forcing_leads_from_the_teacher_to_the_rollout(tmp_path):
    losses = losses_by_forcing(tmp_path, learning_rate=0.0)
    assert_close(losses["scheduled"][0], losses["teacher"][0])
    assert abs(losses["scheduled"][-1] - losses["teacher"][-1]) > 1e-4
    assert abs(losses["rollout"][0] - losses["teacher"][0]) > 1e-4


def test_rollout_forcing_feeds_the_latents_of_the_model_itself(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, forcing="rollout", max_steps=1, num_rows=2)
    batch = trainer.data_collator(trainer.train_dataset.to_list())
    batch.pop("target_trajectory")
    expected = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS)(**batch).loss
    trainer.train()
    assert_close(logged(trainer, "answer_loss")[0], expected.item(), rtol=1e-5, atol=1e-5)


def test_without_latents_stage_two_trains_direct_answers(tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, num_latents=0, num_rows=2, max_steps=20)
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0] / 2
    projector = trainer.model.model.latent_projector
    fresh = tiny_storm("qwen2_5_vl", num_latents=0).model.latent_projector
    for parameter, expected in zip(projector.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@pytest.mark.parametrize("stage", STAGES)
def test_layer_checkpointing_changes_no_number(stage, tmp_path):
    runs = {
        is_on: tiny_trainer(stage, "qwen3_vl", tmp_path / str(is_on), gradient_checkpointing=is_on)
        for is_on in (True, False)
    }
    for trainer in runs.values():
        trainer.train()
    for name in ("loss", "grad_norm"):
        assert_close(logged(runs[True], name), logged(runs[False], name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_evaluation_reports_the_same_parts_as_training(stage, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path)
    metrics = trainer.evaluate(trainer.train_dataset)
    assert metrics["eval_loss"] > 0
    names = {f"eval_{name}" for name in (STAGE_I_METRICS if stage == "align" else {"mean_token_accuracy"})}
    assert names <= trainer.state.log_history[-1].keys()
