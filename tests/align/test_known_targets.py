"""Gauges and contrastive losses of a step are those of its rows, however they are cut into batches."""

from dataclasses import dataclass

import pytest
import torch
from accelerate import Accelerator
from tests.training.tiny_training import HIDDEN_SIZE, TinyCollator, logged, tiny_rows, tiny_trainer

from storm_hf.align.targets import MOST_EARLIER, KnownTargets
from storm_hf.errors import ConfigurationError


CUTS = [(4, 1), (2, 2), (1, 4)]
GAUGES = ("latent_cosine", "latent_cosine_baseline", "latent_retrieval", "latent_retrieval_chance")


@dataclass(frozen=True)
class NearlyOneVector(TinyCollator):
    """Targets as raw features are: one vector, and a little of each row's own."""

    def target(self, number):
        base = torch.randn(self.num_latents, HIDDEN_SIZE, generator=torch.Generator().manual_seed(1))
        return base + 0.05 * super().target(number)


@dataclass(frozen=True)
class OneVector(TinyCollator):
    """All targets are one vector."""

    def target(self, number):
        return super().target(0)


def run(folder, size, accumulated, collator=TinyCollator, **config):
    settings = {"num_rows": 8, "max_steps": 4, "learning_rate": 3e-2, "train_sampling_strategy": "sequential"}
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
    trainer = tiny_trainer("align", "qwen2_5_vl", folder, **{**settings, **sizes, **config})
    trainer.data_collator = collator("qwen2_5_vl", with_targets=True)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("collator", "loss"),
    [
        (TinyCollator, "cosine_mse"),
        (TinyCollator, "infonce"),
        (NearlyOneVector, "cosine_mse"),
        (NearlyOneVector, "infonce"),
        (OneVector, "cosine_mse"),  # contrast of one vector has no gradient, and AdamW would enlarge its rounding
    ],
)
def test_gauges_losses_and_gradients_are_those_of_the_whole_step(collator, loss, tmp_path):
    names = (*GAUGES, "align_loss", "loss", "grad_norm")
    runs = [run(tmp_path / str(cut), *cut, collator, align_loss=loss) for cut in CUTS]
    expected = {name: logged(runs[0], name) for name in names}
    assert len(expected["latent_cosine_baseline"]) == 4
    for trainer in runs[1:]:
        for name in names:
            assert logged(trainer, name) == pytest.approx(expected[name], rel=2e-3, abs=2e-4), name


def test_one_vector_for_all_reads_as_the_failure_that_it_is(tmp_path):
    trainer = run(tmp_path, 1, 4, OneVector)
    assert logged(trainer, "latent_cosine_baseline") == pytest.approx(logged(trainer, "latent_cosine"), abs=1e-5)
    assert logged(trainer, "latent_retrieval") == pytest.approx(logged(trainer, "latent_retrieval_chance"))


def test_single_rows_are_compared_with_earlier_ones_and_the_first_with_none(tmp_path):
    trainer = run(tmp_path, 1, 1, max_steps=3)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert ["latent_cosine_baseline" in entry for entry in entries] == [False, True, True]
    assert logged(trainer, "latent_retrieval_chance") == pytest.approx([1 / 2, 1 / 3])
    assert len(logged(trainer, "latent_cosine")) == 3


def test_evaluation_in_single_rows_logs_gauges(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, per_device_eval_batch_size=1)
    trainer.evaluate(tiny_rows(4))
    assert trainer.state.log_history[-1]["eval_latent_retrieval_chance"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_row_is_never_compared_with_its_own_target_of_an_earlier_epoch(rounding):
    rows = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    known_targets = KnownTargets(Accelerator())
    for epoch in range(3):
        for number, row in enumerate(rows):
            known, first = known_targets.take(row[None] * (1 + epoch * rounding))
            others = known[first + 1 :]
            assert not torch.isclose(others, row).all(dim=(1, 2)).any()
            assert len(others) == (number if epoch == 0 else 2)


def test_single_rows_of_one_vector_are_compared_with_each_other():
    known_targets = KnownTargets(Accelerator())
    counts = [len(known_targets.take(torch.ones(1, 2, 5))[0]) for _ in range(3)]
    assert counts == [1, 2, 2]


def test_repeated_evaluation_in_single_rows_compares_with_the_other_rows(tmp_path):
    trainer = tiny_trainer("align", "qwen2_5_vl", tmp_path, per_device_eval_batch_size=1)
    _, *later = [trainer.evaluate(tiny_rows(3)) for _ in range(3)]
    for measured in later:
        assert measured["eval_latent_retrieval_chance"] == pytest.approx(1 / 3)


def test_contrast_of_a_single_row_is_refused(tmp_path):
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    with pytest.raises(ConfigurationError, match="`align_loss: infonce`.*one row"):
        tiny_trainer("align", "qwen2_5_vl", tmp_path, align_loss="infonce", **sizes)


def test_memory_of_earlier_rows_is_bounded():
    known = KnownTargets(Accelerator(cpu=True))
    for _ in range(MOST_EARLIER + 5):
        all_known, first = known.take(torch.randn(1, 2, 3))
    assert (len(all_known), first) == (1 + MOST_EARLIER, 0)


def test_targets_of_another_shape_forget_earlier_ones():
    known = KnownTargets(Accelerator(cpu=True))
    known.take(torch.randn(1, 2, 3))
    assert known.take(torch.randn(1, 4, 3))[0].shape == (1, 4, 3)
