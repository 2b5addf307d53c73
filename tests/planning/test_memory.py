import pytest

from storm_hf.model.rollout_storm import RolloutGradient
from storm_hf.planning.layers import Layers, logits_bytes
from storm_hf.planning.memory import HeldMemory, Sharing, StepMemory, Weights, held_memory, peak_memory
from storm_hf.planning.passes import Adapter, Arithmetic, Piece, Sequence, parallel_pass, rollout_passes
from storm_hf.planning.shape import DecoderShape


SHAPE = DecoderShape(
    hidden_size=64,
    num_layers=3,
    num_heads=4,
    query_width=64,
    key_width=32,
    intermediate_size=128,
    vocab_size=1000,
    normalizes_queries=False,
)
TOKENS = Sequence(prompt=1000, latents=8, answer=10)
BF16 = Arithmetic(4, 2)


def test_float32_weights_take_16_bytes_a_parameter():
    held = held_memory(Weights(total=100, trainable=100), Sharing())
    assert (held.weights, held.gradients, held.optimizer, held.communication) == (400, 400, 800, 0)


def test_ddp_adds_buckets_as_large_as_the_gradients():
    assert held_memory(Weights(total=100, trainable=80), Sharing(8)).communication == 320


def test_zero_divides_what_its_stage_says():
    weights = Weights(total=800, trainable=800, bytes_frozen=2, bytes_trainable=2)
    second, third = (held_memory(weights, Sharing(8, stage)) for stage in (2, 3))
    assert (second.weights, second.gradients, second.optimizer) == (1600, 200, 1200)
    assert (third.weights, third.gradients, third.optimizer) == (200, 200, 1200)


def test_zero_keeps_a_float32_copy_beside_the_states():
    weights = Weights(total=100, trainable=100, bytes_frozen=2, bytes_trainable=2)
    assert held_memory(weights, Sharing(1, 2)).optimizer == 1200
    assert held_memory(weights, Sharing(1, 2), bytes_per_state=1).optimizer == 600


def test_weights_in_4_bits_take_a_half_and_their_scales():
    plain = Weights(total=6400, trainable=0, quantized=6400)
    assert plain.size == 6400 // 2 + 4 * 100
    assert Weights(total=6400, trainable=0, quantized=6400, has_nested_scales=True).size == 3200 + 100 + 2


def test_rollout_is_the_prompt_then_single_tokens_then_the_answer():
    pieces = rollout_passes(Sequence(10, 2, 3), RolloutGradient())
    assert pieces == [Piece(10, 10), Piece(1, 11), Piece(1, 12), Piece(3, 15)]
    assert rollout_passes(Sequence(10, 2, 3), RolloutGradient(detach_prompt=True)) == pieces[1:]
    assert rollout_passes(Sequence(10, 2, 3), RolloutGradient(truncate_steps=1)) == pieces[2:]
    sweeps = rollout_passes(Sequence(10, 2, 3), RolloutGradient(jacobi_sweeps=1))
    assert sweeps == [Piece(10, 10), Piece(2, 12), Piece(5, 15)]


def test_each_latent_step_keeps_its_own_copy_of_the_cache():
    layers = Layers(SHAPE, BF16)
    eight, nine = (rollout_passes(Sequence(1000, steps, 10), RolloutGradient()) for steps in (8, 9))
    growth = layers.cache(nine) - layers.cache(eight)
    one_cache = 2 * 2 * SHAPE.key_width * 1009 * SHAPE.num_layers
    assert growth == pytest.approx(one_cache, rel=0.02)
    assert layers.cache(parallel_pass(TOKENS)) == 0


def test_checkpointing_keeps_inputs_of_layers_alone():
    layers = Layers(SHAPE, BF16, is_checkpointed=True)
    ends = TOKENS.total * SHAPE.hidden_size * 12
    assert layers.activations(parallel_pass(TOKENS), TOKENS.total) == ends + TOKENS.total * SHAPE.hidden_size * 4 * 3


def test_adapter_spares_what_only_weights_need():
    pieces = parallel_pass(TOKENS)
    full, adapted = Layers(SHAPE, BF16), Layers(SHAPE, BF16, Adapter(rank=4, parameters=4))
    assert adapted.activations(pieces, TOKENS.total) < full.activations(pieces, TOKENS.total)
    dropping = Layers(SHAPE, BF16, Adapter(rank=4, parameters=4, has_dropout=True))
    masks = 3 * (5 * 64 + 64 + 128) * TOKENS.total
    assert dropping.activations(pieces, 0) - adapted.activations(pieces, 0) == masks


def test_frozen_float32_weights_are_cast_once_for_each_piece():
    adapter = Adapter(rank=4, parameters=4)
    pieces = rollout_passes(TOKENS, RolloutGradient())
    assert Layers(SHAPE, BF16, adapter).weight_copies(pieces) == 10 * Layers(SHAPE, BF16).weight_copies(pieces)
    assert Layers(SHAPE, Arithmetic(2, 2), adapter).weight_copies(pieces) == 0


def test_logits_are_made_in_tiles():
    assert logits_bytes(10, SHAPE, Arithmetic(2, 2)) == 2 * 10 * 1000
    assert logits_bytes(10**6, SHAPE, Arithmetic(2, 2)) == 2 * 4096 * 1000


def test_gradients_that_accumulate_are_there_in_every_pass():
    held = HeldMemory(weights=100, gradients=50, optimizer=200, communication=0)
    step = StepMemory(
        pixels=1,
        vision=2,
        activations=40,
        kept_in_backward=40,
        weight_copies=0,
        cache=0,
        workspace=10,
        logits=5,
        update=0,
    )
    assert peak_memory(held, step, accumulates=False, is_checkpointed=True, is_rollout=False) == 301 + 50 + 10
    assert peak_memory(held, step, accumulates=True, is_checkpointed=True, is_rollout=False) == 301 + 50 + 40 + 10
    assert peak_memory(held, step, accumulates=False, is_checkpointed=True, is_rollout=True) == 301 + 50 + 40 + 10
