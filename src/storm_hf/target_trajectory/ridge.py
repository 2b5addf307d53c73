"""The linear probe's regression: what a linear map reads off some features, held small where they are many.

Axes: N rows, F features, C outputs.
"""

import torch


def ridge_weights(inputs: torch.Tensor, outputs: torch.Tensor, penalty: float) -> torch.Tensor:
    """Solve a ridge regression without an intercept, in the smaller of its two spaces.

    Args:
        inputs (`torch.Tensor` of shape `(num_rows, num_features)`):
            In float64.
        outputs (`torch.Tensor` of shape `(num_rows, num_outputs)`):
            In float64.
        penalty (`float`):
            On the squared weights, per row.

    Returns:
        `torch.Tensor` of shape `(num_features, num_outputs)`: The weights.
    """
    num_rows, num_features = inputs.shape
    damping = penalty * num_rows * torch.eye(min(num_rows, num_features), dtype=inputs.dtype)
    if num_features <= num_rows:
        return torch.linalg.solve(inputs.T @ inputs + damping, inputs.T @ outputs)
    return inputs.T @ torch.linalg.solve(inputs @ inputs.T + damping, outputs)
