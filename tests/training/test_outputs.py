"""Metrics, losses and gradients of one's own, in both stages."""

import numpy as np
import pytest
import torch
from tests.training.tiny_training import STAGES, logged, tiny_rows, tiny_trainer

from storm_hf.inputs.collator import IGNORED_LABEL


# TRL announces that logits in evaluation, label smoothing and loss functions of one's own leave it in 2.0.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{name}.* deprecated:FutureWarning")
    for name in ("return_outputs", "label_smoothing_factor", "compute_loss_func")
]


def token_accuracy(predictions):
    """Accuracy as for any causal model: predictions are one column before their labels."""
    is_label = predictions.label_ids[:, 1:] != IGNORED_LABEL
    guesses = predictions.predictions[:, :-1].argmax(axis=-1)
    return {
        "accuracy": float((guesses == predictions.label_ids[:, 1:])[is_label].mean()),
        "count": float(is_label.sum()),
    }


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_metrics_see_logits_beside_their_labels(stage, batch_size, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, per_device_eval_batch_size=batch_size, max_steps=20)
    trainer.train()  # until some tokens are right and some are wrong
    trainer.compute_metrics = token_accuracy
    rows = tiny_rows(5)
    metrics = trainer.evaluate(rows)
    answers = [trainer.data_collator.answer(number) for number in rows["number"]]
    assert metrics["eval_count"] == sum(map(len, answers))
    trainer.compute_metrics = None
    trainer.args.per_device_eval_batch_size = 5
    trainer.evaluate(rows)
    assert metrics["eval_accuracy"] == pytest.approx(logged(trainer, "eval_mean_token_accuracy")[-1], abs=1e-6)
    assert metrics["eval_accuracy"] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_predictions_have_the_shape_of_their_labels(stage, tmp_path):
    predictions = tiny_trainer(stage, "qwen2_5_vl", tmp_path, per_device_eval_batch_size=2).predict(tiny_rows(5))
    assert predictions.predictions.shape[:2] == predictions.label_ids.shape
    assert np.isfinite(predictions.predictions[predictions.label_ids != IGNORED_LABEL]).all()


@pytest.mark.parametrize(("stage", "part"), [("align", "align_loss"), ("answer", "entropy")])
def test_parts_of_each_evaluated_set_have_its_name_and_are_of_its_rows_alone(stage, part, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, per_device_eval_batch_size=3)
    alone = [trainer.evaluate(tiny_rows(number))[f"eval_{part}"] for number in (3, 6)]
    sets = trainer.evaluate({"few": tiny_rows(3), "more": tiny_rows(6)})
    assert [sets[f"eval_few_{part}"], sets[f"eval_more_{part}"]] == pytest.approx(alone)
    assert [logged(trainer, f"eval_{name}_{part}") for name in ("few", "more")] == [[value] for value in alone]
    assert f"eval_{part}" not in sets


@pytest.mark.parametrize(("stage", "part"), [("align", "align_loss"), ("answer", "entropy")])
def test_prediction_has_the_parts_too_and_leaves_none_to_the_next_evaluation(stage, part, tmp_path):
    trainer = tiny_trainer(stage, "qwen2_5_vl", tmp_path, per_device_eval_batch_size=3)
    before = [trainer.evaluate(tiny_rows(number))[f"eval_{part}"] for number in (3, 6)]
    predicted = trainer.predict(tiny_rows(6)).metrics
    assert predicted[f"test_{part}"] == pytest.approx(before[1])
    assert trainer.evaluate(tiny_rows(3))[f"eval_{part}"] == pytest.approx(before[0])


def own_loss(outputs, labels, num_items_in_batch=None):
    logits, wanted = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    total = torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / num_items_in_batch


@pytest.mark.parametrize("stage", STAGES)
def test_cross_entropy_of_ones_own_is_the_loss(stage, tmp_path):
    trainers = [tiny_trainer(stage, "qwen2_5_vl", tmp_path / name) for name in ("own", "stock")]
    trainers[0].compute_loss_func = own_loss
    for trainer in trainers:
        trainer.train()
    for name in ("loss", "grad_norm"):
        assert logged(trainers[0], name) == pytest.approx(logged(trainers[1], name), rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_smoothed_labels_change_the_answers_loss_alone(stage, tmp_path):
    smooth = tiny_trainer(stage, "qwen2_5_vl", tmp_path / "smooth", label_smoothing_factor=0.3, max_steps=1)
    stock = tiny_trainer(stage, "qwen2_5_vl", tmp_path / "stock", max_steps=1)
    for trainer in (smooth, stock):
        trainer.train()
    assert logged(smooth, "loss") != pytest.approx(logged(stock, "loss"), rel=1e-4)
    assert logged(smooth, "align_loss") == pytest.approx(logged(stock, "align_loss"))


@pytest.mark.parametrize("cheaper", [{"detach_prompt": True}, {"truncate_steps": 1}, {"jacobi_sweeps": 1}], ids=str)
def test_streamed_rows_train_with_cheaper_gradients(cheaper, tmp_path):
    trainer = tiny_trainer("answer", "qwen2_5_vl", tmp_path, **cheaper)
    trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()
    trainer.train()
    assert len(logged(trainer, "loss")) == 2
    assert len(logged(trainer, "rollout_gradient_error")) == 1
