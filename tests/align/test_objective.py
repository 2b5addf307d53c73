"""The objective of Stage I on tensors small enough to compute by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from storm_hf.align.objective import TEMPERATURE, trajectory_alignment
from storm_hf.errors import LatentError


# Two rows of one step, in the plane.
LATENTS = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
TARGETS = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])


@pytest.mark.parametrize(
    ("kind", "reduction", "expected"),
    [
        ("cosine", "mean", [1.0, 0.0]),
        ("mse", "mean", [1.0, 0.5]),
        ("mse", "sum", [2.0, 1.0]),
        ("cosine_mse", "mean", [2.0, 0.5]),
        ("cosine_mse", "sum", [3.0, 1.0]),
    ],
)
def test_loss_of_each_row_has_its_closed_form(kind, reduction, expected):
    assert_close(trajectory_alignment(LATENTS, TARGETS, kind, reduction).loss, torch.tensor(expected))


@pytest.mark.parametrize("kind", ["cosine", "mse", "cosine_mse"])
def test_loss_of_the_target_itself_is_nothing(kind):
    targets = torch.randn(3, 4, 5)
    assert_close(trajectory_alignment(targets, targets, kind).loss, torch.zeros(3), rtol=0, atol=1e-6)


def test_loss_is_the_mean_over_steps():
    latents = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    targets = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    assert_close(trajectory_alignment(latents, targets, "mse").loss, torch.tensor([0.75]))


def test_contrastive_loss_is_a_softmax_over_the_rows():
    latents = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    targets = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]]])
    expected = [
        -math.log(math.exp(1 / TEMPERATURE) / (math.exp(1 / TEMPERATURE) + math.exp(0.6 / TEMPERATURE))),
        -math.log(math.exp(0.8 / TEMPERATURE) / (math.exp(0.0) + math.exp(0.8 / TEMPERATURE))),
    ]
    assert_close(trajectory_alignment(latents, targets, "infonce").loss, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_contrastive_loss_compares_within_a_step():
    """The same two directions at both steps: rows differ at each step, so each is found; steps are never confused."""
    one, other = [1.0, 0.0], [0.0, 1.0]
    targets = torch.tensor([[one, other], [other, one]])
    assert (trajectory_alignment(targets, targets, "infonce").loss < 1e-3).all()


def test_baseline_is_the_cosine_to_the_targets_of_other_rows():
    targets = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]], [[0.0, 1.0]]])
    alignment = trajectory_alignment(targets, targets)
    assert_close(alignment.cosine, torch.tensor(1.0))
    assert_close(alignment.cosine_baseline, torch.tensor((0.6 + 0.0 + 0.8) / 3))


def test_baseline_of_features_that_are_all_alike_is_as_high_as_the_cosine():
    alike = torch.ones(4, 2, 3) + 1e-3 * torch.randn(4, 2, 3)
    alignment = trajectory_alignment(alike, alike)
    assert alignment.cosine - alignment.cosine_baseline < 1e-4


def test_retrieval_counts_latents_whose_own_target_is_nearest():
    targets = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]], [[0.0, -1.0]]])
    latents = targets.clone()
    latents[3] = targets[0]
    alignment = trajectory_alignment(latents, targets)
    assert_close(alignment.retrieval, torch.tensor(0.75))
    assert_close(alignment.retrieval_chance, torch.tensor(0.25))


def test_single_row_has_no_other_to_compare_with():
    alignment = trajectory_alignment(LATENTS[:1], TARGETS[:1])
    assert_close(alignment.cosine, torch.tensor(0.0))
    assert (alignment.cosine_baseline, alignment.retrieval, alignment.retrieval_chance) == (None, None, None)


def test_rows_are_compared_with_all_known_targets():
    """One row of a batch of four has the loss, the baseline and the retrieval that it has in the batch of four."""
    generator = torch.Generator().manual_seed(0)
    latents, targets = torch.randn(4, 2, 8, generator=generator), torch.randn(4, 2, 8, generator=generator)
    whole = trajectory_alignment(latents, targets, "infonce")
    parts = [
        trajectory_alignment(latents[row, None], targets[row, None], "infonce", known=targets, first=row)
        for row in range(4)
    ]
    assert_close(torch.cat([part.loss for part in parts]), whole.loss)
    for name in ("cosine", "cosine_baseline", "retrieval", "retrieval_chance"):
        assert_close(torch.stack([getattr(part, name) for part in parts]).mean(), getattr(whole, name))


def test_targets_that_are_one_vector_are_retrieved_by_chance():
    targets = torch.ones(4, 2, 3)
    alignment = trajectory_alignment(targets, targets)
    assert_close(alignment.retrieval, alignment.retrieval_chance)
    assert_close(alignment.cosine_baseline, alignment.cosine)


@pytest.mark.parametrize("shape", [(2, 1, 2), (1, 2, 2)])
def test_latents_and_targets_of_different_shapes_are_refused(shape):
    with pytest.raises(LatentError, match=r"one shape, got \(1, 1, 2\)"):
        trajectory_alignment(LATENTS[:1], torch.ones(shape))


@pytest.mark.parametrize("kind", ["cosine", "mse", "cosine_mse", "infonce"])
def test_gradient_pulls_latents_to_their_targets(kind):
    latents = torch.randn(4, 2, 8, requires_grad=True, generator=torch.Generator().manual_seed(0))
    targets = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1))
    before = trajectory_alignment(latents, targets, kind)
    before.loss.sum().backward()
    after = trajectory_alignment(latents.detach() - 0.1 * latents.grad, targets, kind)
    assert after.loss.sum() < before.loss.sum()
    assert after.cosine > before.cosine


def test_half_precision_is_computed_in_full():
    alignment = trajectory_alignment(LATENTS.bfloat16(), TARGETS.bfloat16(), "mse", "sum")
    assert alignment.loss.dtype == torch.float32
