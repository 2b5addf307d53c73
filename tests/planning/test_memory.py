from torch import nn

from storm_hf.planning.memory import Sharing, Weights, held_memory


def weights(total, trainable, num_bytes=4):
    return Weights(total, trainable, num_bytes * total, num_bytes * trainable)


def test_float32_weights_take_16_bytes_a_parameter():
    held = held_memory(weights(100, 100), Sharing())
    assert (held.weights, held.gradients, held.optimizer, held.communication) == (400, 400, 800, 0)


def test_ddp_adds_buckets_as_large_as_the_gradients():
    assert held_memory(weights(100, 80), Sharing(8)).communication == 320


def test_zero_divides_what_its_stage_says():
    second, third = (held_memory(weights(800, 800, 2), Sharing(8, stage)) for stage in (2, 3))
    assert (second.weights, second.gradients, second.optimizer) == (1600, 200, 1200)
    assert (third.weights, third.gradients, third.optimizer) == (200, 200, 1200)
    assert (second.communication, third.communication) == (1600, 1600 + 1600), "the third gathers weights too"


def test_buffers_of_zero_have_a_limit():
    large = weights(8 * 10**9, 4 * 10**9, 2)
    assert held_memory(large, Sharing(8, 2)).communication == 2 * 500_000_000
    assert held_memory(large, Sharing(8, 3)).communication == 2 * 500_000_000 + 2 * 10**9


def test_zero_keeps_a_float32_copy_beside_the_states():
    assert held_memory(weights(100, 100, 2), Sharing(1, 2)).optimizer == 1200
    assert held_memory(weights(100, 100, 2), Sharing(1, 2), bytes_per_state=1).optimizer == 600


def test_weights_are_those_of_the_model():
    model = nn.Sequential(nn.Linear(4, 4, bias=False).half().requires_grad_(False), nn.Linear(4, 2, bias=False))
    assert Weights.of(model) == Weights(total=24, trainable=8, size=2 * 16 + 4 * 8, trainable_size=32)


def test_weights_in_4_bits_take_a_half_and_their_scales():
    model = nn.Linear(64, 100, bias=False).requires_grad_(False)
    plain, nested = (Weights.of(model, [model.weight], has_nested_scales=nested) for nested in (False, True))
    assert (plain.size, plain.quantized) == (6400 // 2 + 4 * 100, 6400)
    assert nested.size == 3200 + 100 + 2
