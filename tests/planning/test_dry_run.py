"""Bytes of living tensors, and operations without data beside the same operations with data."""

import pytest
import torch
from tests.backbones import tiny_backbone_config
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.initialization import no_init_weights

from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.planning.dry_run import DryRun, DryTensor, LiveBytes


FAST = ("qwen2_5_vl", "qwen3_5", "qwen3_vl_moe")  # full attention, hybrid, a mixture of experts
SLOW = ("qwen3_vl", "qwen3_5_moe", "internvl", "smolvlm", "llava_onevision", "glm4v_moe", "ernie4_5_vl_moe", "lfm3_vl")


def test_only_living_tensors_count_and_views_count_once():
    known = torch.ones(10)
    with LiveBytes([known]) as memory:
        doubled = known * 2
        view = doubled[:5].view(5, 1)
        assert memory.now == 40
        del doubled
        assert memory.now == 40, "the view still needs it"
        del view
        assert (memory.now, memory.peak) == (0, 40)


def test_what_backward_needs_counts_until_it_is_done():
    weight = torch.ones(100, requires_grad=True)
    with LiveBytes([weight]) as memory:
        loss = weight.exp().sum()
        assert memory.now == 404, "the exponential and the loss"
        loss.backward()
        del loss
        assert memory.now == 400, "the gradient"


def test_tensor_made_in_a_dry_run_has_a_shape_and_no_data():
    with DryRun() as run:
        states = torch.empty(2**40, 4)
        doubled = (states.double() * 2)[1:].t()
        assert isinstance(doubled, DryTensor)
        assert (doubled.shape, doubled.dtype, doubled.device.type) == ((4, 2**40 - 1), torch.float64, "cpu")
        del states
        assert run.now == 2**40 * 4 * 8, "the view needs all of it"


def test_token_ids_have_their_data():
    with DryRun():
        table, ids = torch.empty(10, 4), torch.tensor([[1, 2, 3], [4, 5, 6]])
        is_even = ids % 2 == 0
        assert is_even.nonzero().tolist() == [[0, 1], [1, 0], [1, 2]]
        assert nn.functional.embedding(ids, table)[is_even].shape == (3, 4)


def test_operation_that_needs_data_is_an_error():
    with DryRun(), pytest.raises(RuntimeError):
        torch.empty(3).nonzero()
    with DryRun(), pytest.raises(RuntimeError):
        torch.empty(()).item()
    with DryRun():
        tensor = torch.empty(3)
    with pytest.raises(RuntimeError, match="data"):
        tensor + 1


def test_in_place_operation_makes_nothing():
    with DryRun() as run:
        states = torch.empty(8)
        assert states.add_(1) is states
        assert run.now == 32


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_flops_are_those_of_the_model_also_where_a_layer_is_computed_again(is_checkpointed):
    with DryRun() as run:
        layer, states = nn.Linear(16, 32, bias=False), torch.empty(5, 16, requires_grad=True)
        if is_checkpointed:
            output = checkpoint(layer, states, use_reentrant=False, context_fn=run.checkpoint_contexts)
        else:
            output = layer(states)
        assert run.flops == 2 * 5 * 16 * 32
        output.sum().backward()
        assert run.flops == 3 * 2 * 5 * 16 * 32


def test_attention_counts_pairs_forward_and_twice_backward():
    with DryRun() as run:
        queries, keys, values = (torch.empty(1, 4, 7, 8, requires_grad=True) for _ in range(3))
        nn.functional.scaled_dot_product_attention(queries, keys, values).sum().backward()
    assert run.flops == 12 * 7 * 7 * 4 * 8


def step(memory, kind, is_rolled_out):
    """Take a step of a tiny STORM on words, and return the most bytes in use, and those kept for the backward pass."""
    ids = {"latent_start_token_id": 120, "latent_token_id": 121, "latent_end_token_id": 122}
    config = StormConfig(vlm_config=tiny_backbone_config(kind).to_dict(), num_latents=2, **ids)
    with no_init_weights():
        model = StormForConditionalGeneration(config).train()
    words = torch.arange(40) % 90 + 5
    input_ids = torch.cat([words, torch.tensor([120, 121, 121, 122]), words[:4]])[None]
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": input_ids}
    if kind != "smolvlm":
        inputs["mm_token_type_ids"] = torch.zeros_like(input_ids)
    if not is_rolled_out:
        inputs["forced_latents"] = torch.zeros(1, 2, config.hidden_size)
    before = memory.peak = memory.now
    loss = model(**inputs).loss
    kept = memory.now - before
    loss.backward()
    return memory.peak - before, kept


@pytest.mark.parametrize("is_rolled_out", [False, True], ids=["forced", "rolled out"])
@pytest.mark.parametrize("kind", [*FAST, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_step_without_data_takes_what_one_with_data_takes(kind, is_rolled_out):
    with LiveBytes() as memory:
        real = step(memory, kind, is_rolled_out)
    with DryRun() as run:
        assert step(run, kind, is_rolled_out) == pytest.approx(real, rel=0.01)
