import pytest
import torch

from storm_hf.target_trajectory.rank import ridge_weights


@pytest.mark.parametrize("num_features", [3, 20])
def test_weights_are_where_the_penalised_error_is_least(num_features):
    torch.manual_seed(0)
    inputs, outputs = torch.randn(12, num_features).double(), torch.randn(12, 2).double()
    weights = ridge_weights(inputs, outputs, 0.5).requires_grad_()
    loss = (inputs @ weights - outputs).square().sum() + 0.5 * 12 * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() < 1e-9


def test_without_a_penalty_a_linear_map_is_found():
    torch.manual_seed(0)
    inputs, truth = torch.randn(12, 3).double(), torch.randn(3, 2).double()
    assert torch.allclose(ridge_weights(inputs, inputs @ truth, 0.0), truth)
