"""Weight gradients gathered over the passes of a rollout: one product for each matrix instead of one for each pass.

A rollout reads the weights in K + 1 passes, K of them over a token or a few. Autograd makes a gradient as large as the matrix in
each pass and adds it to the ones before, so that the steps of a small batch cost as much as their matrices are large. Here the
passes leave the inputs and output gradients of a projection behind, and they are multiplied once: in exact arithmetic the same
gradient, with fewer roundings. The separation of the two halves of a backward pass is that of zero-bubble pipelines
(arXiv 2401.10241).

Axes: N tokens of a pass, I input features, O output features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


_Pass = tuple[torch.Tensor, torch.Tensor]  # inputs (N, I) and output gradients (N, O) of a projection


class _ReadOnce(torch.autograd.Function):
    """The weight as all passes read it. Its backward pass comes after those of all of them, and multiplies what they left."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, dtype: torch.dtype, passes: list[_Pass]) -> torch.Tensor:
        ctx.set_materialize_grads(False)  # the passes give none: it would be a matrix of zeros
        ctx.passes, ctx.dtype = passes, weight.dtype
        return weight.to(dtype) if weight.dtype != dtype else weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *_: None) -> tuple[torch.Tensor, None, None]:
        longest, *others = sorted(ctx.passes, key=lambda one: len(one[0]), reverse=True)
        ctx.passes.clear()
        weight_gradient = longest[1].t() @ longest[0]  # (O, I)
        if others:  # the prompt is not copied to be joined with single tokens
            inputs, gradients = (torch.cat(parts) for parts in zip(*others, strict=True))
            weight_gradient.addmm_(gradients.t(), inputs)
        return weight_gradient.to(ctx.dtype), None, None


class _Projection(torch.autograd.Function):
    """A linear layer that leaves inputs and output gradients behind instead of a gradient of its weight."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, passes: list[_Pass]
    ) -> torch.Tensor:
        ctx.save_for_backward(states, weight)
        ctx.passes = passes
        return nn.functional.linear(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None, None]:
        states, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (N, O)
        if torch._C._will_engine_execute_node(ctx.next_functions[1][0]):  # else `autograd.grad` asks for others alone
            ctx.passes.append((states.flatten(0, -2), rows))
        of_states = gradient @ weight if ctx.needs_input_grad[0] else None
        return of_states, None, rows.sum(dim=0) if ctx.needs_input_grad[2] else None, None


class _GatheringLinear:
    """The forward pass of a linear layer within one training step."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.passes: list[_Pass] = []
        self.weight: torch.Tensor | None = None

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return nn.functional.linear(input, self.layer.weight, self.layer.bias)
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.layer.weight.dtype
        if self.weight is None:
            self.weight = _ReadOnce.apply(self.layer.weight, dtype, self.passes)
        bias = None if self.layer.bias is None else self.layer.bias.to(dtype)
        return _Projection.apply(input.to(dtype), self.weight, bias, self.passes)


@contextmanager
def gathered_weight_gradients(model: PreTrainedModel) -> Iterator[None]:
    """Gather the weight gradients of a language model's linear layers while it is open: over a forward and a backward pass.

    Args:
        model ([`StormForConditionalGeneration`]):
            The model, its weights in one piece. Layers that are frozen, quantized, have an adapter, or a forward pass of their own
            (accelerate's hooks) are left alone.
    """
    layers = [
        layer
        for layer in model.get_decoder().modules()
        if type(layer) is nn.Linear and layer.weight.requires_grad and "forward" not in vars(layer)
    ]
    for layer in layers:
        vars(layer)["forward"] = _GatheringLinear(layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]
