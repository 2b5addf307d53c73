"""The cheaper ways back through the rollout: exact where they say so, and elsewhere the gradient they stand for."""

import copy

import pytest
import torch
from tests.invariants.gradients import (
    NUM_SUPERVISED,
    SUFFIX,
    assert_same_gradients,
    gradients,
    supervised_batch,
)
from tests.reference import first_slot, pad_on_the_right, recompute_latents, run_in_parallel
from tests.tiny import tiny_inputs, tiny_storm
from torch.testing import assert_close

from storm_hf.errors import ConfigurationError
from storm_hf.model.cache_storm import DifferentiableCache
from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.training.trained_weights import freeze_vision


NUM_LATENTS = 4
EXACT = {
    "as many steps as there are": RolloutGradient(truncate_steps=NUM_LATENTS),
    "more steps than there are": RolloutGradient(truncate_steps=9),
    "a sweep for each step but the first": RolloutGradient(jacobi_sweeps=NUM_LATENTS - 1),
}
INEXACT = {
    "prompt": RolloutGradient(detach_prompt=True),
    "steps": RolloutGradient(truncate_steps=2),
    "sweeps": RolloutGradient(jacobi_sweeps=1),
    "prompt and sweeps": RolloutGradient(detach_prompt=True, jacobi_sweeps=2),
}


@pytest.fixture(scope="module")
def model(kind):
    return tiny_storm(kind, num_latents=NUM_LATENTS).train()


@pytest.fixture(scope="module")
def batch(kind):
    return supervised_batch(kind)


def step(model, batch, gradient=None):
    output = model(**batch, rollout_gradient=gradient)
    return output.loss.detach(), output.latents.detach(), gradients(model, output.loss)


def assert_same_step(found, expected):
    assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)
    assert_same_gradients(found[2], expected[2])


@pytest.mark.parametrize("gradient", EXACT.values(), ids=EXACT)
def test_exact_modes_equal_the_full_rollout(model, batch, gradient):
    assert gradient.is_exact(NUM_LATENTS)
    assert_same_step(step(model, batch, gradient), step(model, batch))


@pytest.mark.parametrize("gradient", INEXACT.values(), ids=INEXACT)
def test_inexact_modes_say_so_and_change_the_gradient(model, batch, gradient):
    assert not gradient.is_exact(NUM_LATENTS)
    exact, found = step(model, batch)[2], step(model, batch, gradient)[2]
    difference = sum((found[name] - exact[name]).square().sum() for name in found) ** 0.5
    assert difference > 1e-3 * sum(value.square().sum() for value in exact.values()) ** 0.5


@pytest.mark.parametrize("gradient", [*EXACT.values(), *INEXACT.values()], ids=[*EXACT, *INEXACT])
def test_checkpointing_changes_no_mode(request, model, batch, gradient):
    expected = step(model, batch, gradient)
    assert_same_step(step(request.getfixturevalue("checkpointed_model"), batch, gradient), expected)


@pytest.mark.parametrize("gradient", INEXACT.values(), ids=INEXACT)
def test_modes_do_not_depend_on_the_side_of_the_padding(model, batch, gradient):
    assert_same_step(step(model, pad_on_the_right(batch), gradient), step(model, batch, gradient))


@pytest.mark.parametrize("name", ["prompt", "steps"])
def test_cutting_the_gradient_leaves_the_forward_pass_as_it_is(model, batch, name):
    exact, found = step(model, batch), step(model, batch, INEXACT[name])
    assert_close(found[0], exact[0], rtol=1e-6, atol=1e-7)
    assert_close(found[1], exact[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_with_gradient", [1, 3, None])
def test_what_is_cut_off_counts_as_computed_by_another_model(model, batch, num_with_gradient):
    """The prompt and the first steps, run by a frozen copy: only the rest can learn."""
    start, stop = first_slot(batch), None if num_with_gradient is None else -num_with_gradient
    cut = start if stop is None else start + NUM_LATENTS + stop
    frozen = copy.deepcopy(model).requires_grad_(False)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    positions = model._prepare_position_ids_for_generation(
        inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"}
    )
    cache = DifferentiableCache(model.config.get_text_config())
    prompt = {**inputs, "input_ids": inputs["input_ids"][:, :cut], "attention_mask": inputs["attention_mask"][:, :cut]}
    if "mm_token_type_ids" in inputs:
        prompt["mm_token_type_ids"] = inputs["mm_token_type_ids"][:, :cut]
    with torch.no_grad():
        frozen(**prompt, position_ids=positions[..., :cut], cache=cache)
    loss = model(
        input_ids=inputs["input_ids"][:, cut:],
        attention_mask=inputs["attention_mask"],
        position_ids=positions[..., cut:],
        cache=cache,
        labels=batch["labels"][:, cut:],
    ).loss
    expected = gradients(model, loss)
    cheaper = RolloutGradient(detach_prompt=stop is None, truncate_steps=num_with_gradient)
    found = step(model, batch, cheaper)[2]
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("num_sweeps", [1, 2])
def test_sweeps_are_what_plain_recomputation_gives(model, batch, num_sweeps):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    first, project = first_slot(inputs), model.model.latent_projector
    empty = recompute_latents(model, inputs)[:, :0]
    state = run_in_parallel(model, inputs, empty, stop=first).hidden_states[-1][:, -1:]
    latents = project(state).expand(-1, NUM_LATENTS, -1)
    for _ in range(num_sweeps):
        states = run_in_parallel(model, inputs, latents, stop=first + NUM_LATENTS).hidden_states[-1]
        latents = project(states[:, first - 1 : first + NUM_LATENTS - 1])
    logits = run_in_parallel(model, inputs, latents).logits[:, -NUM_SUPERVISED - 1 : -1]
    answer = batch["labels"][:, -NUM_SUPERVISED:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answer.flatten())
    found = step(model, batch, RolloutGradient(jacobi_sweeps=num_sweeps))
    assert_close(found[0], loss.detach(), rtol=1e-5, atol=1e-6)
    assert_same_gradients(found[2], gradients(model, loss))


def kept_bytes(model, batch, gradient=None):
    """Bytes that autograd keeps for the backward pass, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch, rollout_gradient=gradient).loss  # noqa: F841 (holds the graph)
    return sum(kept.values())


@pytest.mark.parametrize("name", ["prompt", "steps"])
def test_cutting_the_gradient_keeps_less(name):
    model = tiny_storm("qwen2_5_vl", num_latents=12).train()
    freeze_vision(model)
    batch = tiny_inputs("qwen2_5_vl", num_latents=12, suffix=SUFFIX)
    batch["labels"] = batch["input_ids"]
    assert kept_bytes(model, batch, INEXACT[name]) < 0.8 * kept_bytes(model, batch)


def test_reentrant_checkpointing_is_refused(model, batch):
    model.activation_checkpointing_enable({"use_reentrant": True})
    try:
        with pytest.raises(ConfigurationError, match="use_reentrant=False"):
            model(**batch)
    finally:
        model.activation_checkpointing_disable()


@pytest.mark.parametrize("conflict", ["forced_latents", "cache"])
def test_gradient_of_what_is_no_whole_rollout_is_not_cut(model, batch, conflict):
    given = {
        "forced_latents": torch.zeros(2, NUM_LATENTS, model.config.hidden_size),
        "cache": DifferentiableCache(model.config.get_text_config()),
    }
    with pytest.raises(ConfigurationError, match="Leave one of the two out"):
        model(**batch, rollout_gradient=RolloutGradient(detach_prompt=True), **{conflict: given[conflict]})


def test_sweeps_cannot_be_intervened_in(model, batch):
    with pytest.raises(ConfigurationError, match="all at once"):
        model(
            **batch, rollout_gradient=RolloutGradient(jacobi_sweeps=1), latent_intervention=lambda step, latent: latent
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"truncate_steps": 0}, "truncate_steps"),
        ({"jacobi_sweeps": -1}, "jacobi_sweeps"),
        ({"truncate_steps": 1, "jacobi_sweeps": 1}, "give one of them"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        RolloutGradient(**settings)
