"""Gradients through the rollout and its cache are those of the plainest computation, which recomputes everything."""

import pytest
import torch
from tests.invariants.gradients import NUM_SUPERVISED, assert_same_gradients, gradients, supervised_batch
from tests.reference import pad_on_the_right, recompute_latents, run_in_parallel
from tests.tiny import LATENT, LATENT_START, tiny_storm
from torch.testing import assert_close
from transformers import StaticCache

from storm_hf.errors import ConfigurationError


@pytest.fixture(scope="module")
def model(kind):
    return tiny_storm(kind).train()


@pytest.fixture(scope="module")
def batch(kind):
    return supervised_batch(kind)


@pytest.fixture(scope="module")
def labels(batch):
    return batch["labels"]


@pytest.fixture(scope="module")
def inputs(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.fixture(scope="module")
def reference(model, inputs, labels):
    """Loss and gradients with the whole sequence computed again for every latent."""
    latents = recompute_latents(model, inputs)
    logits = run_in_parallel(model, inputs, latents).logits[:, -NUM_SUPERVISED - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, -NUM_SUPERVISED:].flatten())
    return loss.detach(), gradients(model, loss)


def test_gradients_of_the_cached_rollout_equal_full_recompute(model, inputs, labels, reference):
    loss = model(**inputs, labels=labels, use_cache=False).loss
    assert_close(loss.detach(), reference[0], rtol=1e-5, atol=1e-6)
    assert_same_gradients(gradients(model, loss), reference[1])


def test_gradients_with_checkpointing_equal_full_recompute(checkpointed_model, inputs, labels, reference):
    loss = checkpointed_model(**inputs, labels=labels, use_cache=False).loss
    assert_close(loss.detach(), reference[0], rtol=1e-5, atol=1e-6)
    assert_same_gradients(gradients(checkpointed_model, loss), reference[1])


def test_checkpointing_really_computes_layers_again(checkpointed_model, inputs, labels):
    calls = []
    handle = checkpointed_model.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        loss = checkpointed_model(**inputs, labels=labels).loss
        num_forward = len(calls)
        gradients(checkpointed_model, loss)
    finally:
        handle.remove()
    assert (num_forward, len(calls)) == (5, 10)  # prompt, three latents, the last with the answer; and each once more


def test_latent_step_leaves_no_gradient_of_the_token_embedding(model, inputs, labels):
    """Such a gradient is as wide as the vocabulary, and zero where latents are fed."""
    widths = []

    def watch(module, args, output):
        output.register_hook(lambda gradient: widths.append(gradient.shape[1]))

    handle = model.get_input_embeddings().register_forward_hook(watch)
    try:
        gradients(model, model(**inputs, labels=labels, use_cache=False).loss)
    finally:
        handle.remove()
    num_columns, num_latents = inputs["input_ids"].shape[1], 4
    assert len(widths) == 2  # the prompt, and what follows the block
    assert sum(widths) == num_columns - num_latents + 1  # with the last latent


@pytest.mark.parametrize("name", ["model", "checkpointed_model"])
def test_gradients_do_not_depend_on_the_side_of_the_padding(request, name, inputs, labels, reference):
    model = request.getfixturevalue(name)
    loss = model(**pad_on_the_right({**inputs, "labels": labels}), use_cache=False).loss
    assert_close(loss.detach(), reference[0], rtol=1e-5, atol=1e-6)
    assert_same_gradients(gradients(model, loss), reference[1])


def test_every_latent_step_contributes_to_the_gradient(model, inputs, labels):
    """Cut the rollout at a step: the projector's gradient changes, so it did go through that step."""
    full = gradients(model, model(**inputs, labels=labels).loss)["model.latent_projector.layers.1.weight"]
    for step in range(4):
        cut = model(
            **inputs,
            labels=labels,
            latent_intervention=lambda i, latent, s=step: latent.detach() if i == s else latent,
        )
        part = gradients(model, cut.loss)["model.latent_projector.layers.1.weight"]
        assert (part - full).abs().max() > 1e-6 * full.abs().max()


def test_gradients_of_latents_alone_reach_the_projector_and_the_embedding(model, inputs):
    loss = model(**inputs).latents.square().mean()
    found = gradients(model, loss)
    assert found["model.latent_projector.layers.1.weight"].count_nonzero() > 0
    embedding = model.get_input_embeddings().weight
    name = next(name for name, parameter in model.named_parameters() if parameter is embedding)
    assert found[name][LATENT_START].count_nonzero() > 0
    assert found[name][LATENT].count_nonzero() == 0  # the placeholder's own embedding is never read


def test_gradients_of_forced_latents_equal_one_parallel_pass(model, inputs, labels):
    targets = torch.randn(2, 4, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    logits = run_in_parallel(model, inputs, targets).logits[:, -NUM_SUPERVISED - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, -NUM_SUPERVISED:].flatten())
    loss = model(**inputs, labels=labels, forced_latents=targets).loss
    assert_same_gradients(gradients(model, loss), gradients(model, expected))


def test_gradients_of_forced_latents_survive_checkpointing(request, model, inputs):
    targets = torch.randn(2, 4, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    expected = gradients(model, model(**inputs, forced_latents=targets).latents.sum())
    model = request.getfixturevalue("checkpointed_model")
    assert_same_gradients(gradients(model, model(**inputs, forced_latents=targets).latents.sum()), expected)


def test_gradient_through_a_static_cache_is_refused(model, inputs):
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=64)
    with pytest.raises(ConfigurationError, match="Leave `cache` out"):
        model(**inputs, cache=cache)
