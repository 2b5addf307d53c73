import pytest
import torch
from tests.diagnostics.thinker import NUM_LATENTS

from storm_hf.diagnostics.geometry import eager_attention, measure_attention
from storm_hf.errors import BackboneError


def test_every_layer_gives_a_share_of_one_to_the_latents(thinker):
    layers = measure_attention(thinker.model, thinker.prompts(), thinker.rows)
    assert len(layers) == thinker.model.config.get_text_config().num_hidden_layers
    for layer in layers:
        assert 0 < layer.on_latents < 1
        assert len(layer.by_step) == NUM_LATENTS
        assert sum(layer.by_step) == pytest.approx(layer.on_latents, abs=1e-5)
        assert 0 < layer.uniform < 0.3


def test_whole_prompts_of_latents_that_keep_to_their_step_are_measured_too(thinker, monkeypatch):
    monkeypatch.setattr(thinker.model.config, "latent_attention", "step")
    layers = measure_attention(thinker.model, thinker.prompts(), thinker.rows)
    for layer in layers:
        assert layer.by_step[:-1] == pytest.approx(
            [0.0] * (NUM_LATENTS - 1), abs=1e-7
        )  # the answer sees the last one alone
        assert 0 < layer.by_step[-1] < 1


def test_batches_change_nothing(thinker):
    whole = measure_attention(thinker.model, thinker.prompts(), thinker.rows)
    pieces = measure_attention(thinker.model, thinker.prompts(), thinker.rows, batch_size=2)
    assert [layer.on_latents for layer in pieces] == pytest.approx([layer.on_latents for layer in whole], abs=1e-4)


def test_attention_without_preference_is_uniform(thinker):
    """Keys of zeros: every token gets the same attention."""
    layers = thinker.model.get_decoder().layers
    with_zeros = [
        layer.self_attn.k_proj.register_forward_hook(lambda *args: torch.zeros_like(args[2])) for layer in layers
    ]
    try:
        measured = measure_attention(thinker.model, thinker.prompts(), thinker.rows)
    finally:
        for hook in with_zeros:
            hook.remove()
    assert [layer.on_latents for layer in measured] == pytest.approx([measured[0].uniform] * len(layers), rel=1e-3)


def test_attention_is_put_back_as_it_was(thinker):
    config = thinker.model.get_decoder().config
    before = config._attn_implementation
    with eager_attention(thinker.model):
        assert config._attn_implementation == "eager"
    assert config._attn_implementation == before != "eager"


def test_backbone_without_attention_is_told(thinker, monkeypatch):
    monkeypatch.setattr("storm_hf.diagnostics.replay.SharedPrompts.run_block", lambda self, **arguments: self)
    monkeypatch.setattr("storm_hf.diagnostics.replay.SharedPrompts.attentions", (None,), raising=False)
    with pytest.raises(BackboneError, match="returns no attention"):
        measure_attention(thinker.model, thinker.prompts(), thinker.rows)
