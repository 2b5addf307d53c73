"""Weight gradients that are gathered over the passes of a rollout are those of autograd, made with one product each."""

import copy
from contextlib import suppress

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from tests.tiny import LATENT_END, tiny_inputs, tiny_storm
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.trained_weights import freeze_vision
from storm_hf.training.weight_gradients import gathered_weight_gradients


INTERMEDIATE_BY_HIDDEN = (
    48,
    32,
)  # the shape of two matrices in each of two layers, and of nothing else that is trained
NUM_LATENTS = 4
GRADIENTS = {
    "exact": None,
    "detach_prompt": RolloutGradient(detach_prompt=True),
    "truncate_steps": RolloutGradient(truncate_steps=2),
    "jacobi_sweeps": RolloutGradient(jacobi_sweeps=2),
}


class Products(TorchDispatchMode):
    """Counts matrix products with a result of one shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default and tuple(output.shape) == self.shape:
            self.count += 1
        return output


@pytest.fixture(scope="module")
def model(kind):
    model = tiny_storm(kind).train()
    freeze_vision(model)
    return model


@pytest.fixture(scope="module")
def batch(kind):
    inputs = tiny_inputs(kind, suffix=(LATENT_END, 7, 8, 9))
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    return {**inputs, "labels": labels, "use_cache": False}


def backpropagate(model, batch, *, gradient=None, autocast=False):
    """Loss and gradients by name."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(**batch, rollout_gradient=gradient).loss
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.detach(), gradients


def gathered(model, batch, **options):
    with gathered_weight_gradients(model):
        return backpropagate(model, batch, **options)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_loss_and_gradients_are_those_of_autograd(model, batch, gradient):
    loss, expected = backpropagate(model, batch, gradient=GRADIENTS[gradient])
    gathered_loss, found = gathered(model, batch, gradient=GRADIENTS[gradient])
    assert torch.equal(gathered_loss, loss)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_of_checkpointed_layers_are_those_of_autograd(model, batch):
    checkpointed = copy.deepcopy(model)
    checkpointed.activation_checkpointing_enable({"use_reentrant": False})
    _, expected = backpropagate(model, batch)
    _, found = gathered(checkpointed, batch)
    for name in expected:
        assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_under_autocast_the_loss_is_the_same_and_gradients_are_no_worse(model, batch):
    _, exact = backpropagate(model, batch)
    loss, of_autograd = backpropagate(model, batch, autocast=True)
    gathered_loss, found = gathered(model, batch, autocast=True)
    assert torch.equal(gathered_loss, loss)

    def error(gradients):
        return sum(float((gradients[name].float() - exact[name]).square().sum()) for name in exact) ** 0.5

    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert error(found) <= 1.1 * error(of_autograd)


def test_each_matrix_has_one_product_for_the_prompt_and_one_for_all_steps(model, batch):
    counts = {}
    for name, backward in {"autograd": backpropagate, "gathered": gathered}.items():
        with Products(INTERMEDIATE_BY_HIDDEN) as products:
            backward(model, batch)
        counts[name] = products.count
    num_matrices = 4
    assert counts == {
        "autograd": num_matrices * (NUM_LATENTS + 1),
        "gathered": num_matrices,
    }  # the other one is an `addmm`


def test_micro_batches_add_up(model, batch):
    _, once = backpropagate(model, batch)
    once = {name: gradient.clone() for name, gradient in once.items()}
    model.zero_grad(set_to_none=True)
    for _ in range(2):
        with gathered_weight_gradients(model):
            model(**batch).loss.backward()
    for name, weight in model.named_parameters():
        if name in once:
            assert_close(weight.grad, 2 * once[name], rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_of_others_alone_leave_nothing_behind(model, batch):
    """As `autograd.grad` takes them, for the balance of two losses or a penalty."""
    _, expected = backpropagate(model, batch)
    expected = {name: gradient.clone() for name, gradient in expected.items()}
    model.zero_grad(set_to_none=True)
    with gathered_weight_gradients(model):
        loss = model(**batch).loss
        torch.autograd.grad(loss, list(model.model.latent_projector.parameters()), retain_graph=True)
        loss.backward()
    for name, weight in model.named_parameters():
        if name in expected:
            assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_forward_pass_that_a_layer_was_given_before_is_left_alone(model, batch):
    layer = model.get_decoder().layers[0].mlp.down_proj
    own = layer.forward
    add_hook_to_module(layer, ModelHook())
    hooked = layer.forward
    with gathered_weight_gradients(model):
        assert layer.forward is hooked
    assert layer.forward is hooked
    remove_hook_from_module(layer)
    assert layer.forward == own
    vars(layer).pop("forward", None)


def test_layers_are_their_own_again_after_a_step_that_failed(model, batch):
    layer = model.get_decoder().layers[0].mlp.down_proj
    with suppress(ZeroDivisionError), gathered_weight_gradients(model):
        assert "forward" in vars(layer)
        raise ZeroDivisionError
    assert "forward" not in vars(layer)
