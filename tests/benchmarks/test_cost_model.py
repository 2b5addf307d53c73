import pytest
import torch
from answer_ways import SIZES
from cost_model import ANSWER, CHAIN, NUM_LATENTS, PHASES, Cost, Operation, Phases, Rates, chain_over_storm, predict
from torch.utils._python_dispatch import TorchDispatchMode

from storm_hf.training.flops import attention_shape, count_parameters


ROWS, PROMPT = 2, 16
SHAPE = SIZES["tiny"]


@pytest.fixture(scope="module")
def costs():
    return predict("tiny", ROWS, PROMPT, torch.float32)


def test_flops_are_two_for_each_weight_and_four_for_each_pair(tiny, costs):
    counts, attention = count_parameters(tiny), attention_shape(tiny.config)
    matrices = sum(weight.numel() for weight in tiny.get_decoder().layers.parameters() if weight.ndim == 2)
    projector = sum(weight.numel() for weight in tiny.model.latent_projector.parameters() if weight.ndim == 2)
    per_pair = 4 * attention.decoder_layers * attention.decoder_width
    assert costs["prefill"].flops == ROWS * (2 * matrices * PROMPT + per_pair * PROMPT**2)
    assert costs["latent step"].flops == ROWS * (2 * (matrices + projector) + per_pair * (PROMPT + 1))
    head = counts.embeddings.total
    assert costs["answer step"].flops == ROWS * (2 * (matrices + head) + per_pair * (PROMPT + 2))


def test_least_bytes_are_the_weights_and_the_cache(tiny, costs):
    layers = sum(weight.nbytes for weight in tiny.get_decoder().layers.parameters())
    per_token = 2 * SHAPE.num_layers * SHAPE.num_key_value_heads * (SHAPE.hidden_size // SHAPE.num_heads) * 4
    projector = sum(weight.nbytes for weight in tiny.model.latent_projector.parameters())
    assert costs["prefill"].least_bytes == layers
    assert costs["latent step"].least_bytes == layers + projector + ROWS * PROMPT * per_token


def test_half_the_numbers_are_half_the_bytes(costs):
    half = predict("tiny", ROWS, PROMPT, torch.bfloat16)
    assert {name: 2 * cost.least_bytes for name, cost in half.items()} == {
        name: cost.least_bytes for name, cost in costs.items()
    }


class Counter(TorchDispatchMode):
    """Counts products of matrices, as they run."""

    def __init__(self):
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_products_are_those_of_a_real_run(tiny, costs):
    phases = Phases(tiny, ROWS, PROMPT)
    for name, call in phases.calls().items():
        with Counter() as counter:
            call()
        attention = SHAPE.num_layers  # each is one operation with FLOPs
        assert counter.products + attention == sum(one.flops > 0 for one in costs[name].operations)


def test_operations_move_at_least_the_least_bytes(costs):
    for cost in costs.values():
        assert sum(operation.num_bytes for operation in cost.operations) >= cost.least_bytes


def test_time_is_that_of_the_operations_one_after_the_other():
    cost = Cost([Operation(flops=100, num_bytes=1), Operation(flops=0, num_bytes=50)], least_bytes=20)
    assert cost.seconds(Rates(10, 5, 2)) == 2 + 100 / 10 + 2 + 50 / 5
    assert cost.limit(flops_per_second=10, bytes_per_second=1) == (20, "bandwidth")
    assert cost.limit(flops_per_second=1, bytes_per_second=1) == (100, "arithmetic")


def test_chain_over_storm_counts_the_passes():
    seconds = dict(zip(PHASES, (10.0, 1.0, 1.0), strict=True))
    assert chain_over_storm(seconds) == (10 + CHAIN + ANSWER - 1) / (10 + NUM_LATENTS + ANSWER)
