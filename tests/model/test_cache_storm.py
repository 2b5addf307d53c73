import pytest
import torch
from tests.tiny import tiny_config
from transformers import DynamicCache

from storm_hf.errors import ConfigurationError
from storm_hf.model.cache_storm import DifferentiableCache, ReplayCache, open_cache


@pytest.fixture
def text_config():
    return tiny_config("qwen3_5").get_text_config()  # a linear and a full attention layer


def keys(value, length=1):
    return torch.full((1, 2, length, 8), float(value))


def test_cache_fits_what_it_is_for(text_config):
    assert type(open_cache(text_config, has_gradient=False, is_checkpointing=False)) is DynamicCache
    assert type(open_cache(text_config, has_gradient=True, is_checkpointing=False)) is DifferentiableCache
    assert type(open_cache(text_config, has_gradient=True, is_checkpointing=True)) is ReplayCache


def test_second_write_of_the_same_piece_changes_nothing(text_config):
    cache = ReplayCache.open(text_config)
    cache.update(keys(1, 3), keys(1, 3), 1)
    piece = cache.fork()
    first, _ = piece.update(keys(2), keys(2), 1)
    again, _ = piece.update(keys(2), keys(2), 1)
    assert first[0, 0, :, 0].tolist() == [1.0, 1.0, 1.0, 2.0]
    assert torch.equal(first, again)
    assert piece.get_seq_length(1) == 4
    assert piece.fork().get_seq_length(1) == 4


def test_earlier_piece_still_sees_its_own_past_after_later_ones_were_written(text_config):
    early = ReplayCache.open(text_config)
    early.update(keys(1), keys(1), 1)
    early.fork().update(keys(2), keys(2), 1)
    again, _ = early.update(keys(1), keys(1), 1)
    assert again[0, 0, :, 0].tolist() == [1.0]


def test_linear_attention_state_is_replayed_too(text_config):
    def write(cache, value):
        full = cache.layers[0].update_conv_state(torch.full((1, 4, 1), float(value)), conv_kernel_size=4)
        cache.layers[0].update_recurrent_state(torch.full((1, 2), float(value)))
        return full

    start = ReplayCache.open(text_config)
    write(start, 1)
    piece = start.fork()
    assert torch.equal(write(piece, 2), write(piece, 2))
    later = piece.fork()
    assert later.layers[0].recurrent_states[0].unique().tolist() == [2.0]
    assert write(later, 3)[0, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 3.0]


def test_linear_attention_state_is_replaced_and_not_overwritten(text_config):
    layer = DifferentiableCache(text_config).layers[0]
    first = torch.ones(1, 2, requires_grad=True) * 1.0
    layer.update_recurrent_state(first)
    layer.update_recurrent_state(2 * first)
    assert first.tolist() == [[1.0, 1.0]]
    assert layer.recurrent_states[0].tolist() == [[2.0, 2.0]]


def test_replaying_a_sliding_window_is_refused():
    text_config = tiny_config(
        "internvl", use_sliding_window=True, sliding_window=4, max_window_layers=0
    ).get_text_config()
    with pytest.raises(ConfigurationError, match="gradient_checkpointing=False"):
        ReplayCache.open(text_config)
