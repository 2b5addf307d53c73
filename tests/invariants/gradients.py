"""Helpers of the gradient tests: a supervised batch, the gradients of a loss, and when two of them are the same."""

from typing import Any

import torch
from tests.tiny import LATENT_END, tiny_inputs
from torch.testing import assert_close


SUFFIX = (LATENT_END, 7, 8, 9)
NUM_SUPERVISED = 3


def supervised_batch(kind: str) -> dict[str, torch.Tensor]:
    """A tiny batch whose last tokens are labelled."""
    inputs = tiny_inputs(kind, suffix=SUFFIX)
    labels = inputs["input_ids"].clone()
    labels[:, :-NUM_SUPERVISED] = -100
    return {**inputs, "labels": labels}


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Backpropagate, and take the gradients off the model."""
    model.zero_grad()
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare each gradient relative to its largest element; those that are nothing but noise count as zero."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1e-3)
        assert_close(found[name] / scale, gradient / scale, rtol=0, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")
