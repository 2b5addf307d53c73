"""The host waits for the device as often as the backbone makes it, three times more at most, and for no latent step."""

import weakref

import pytest
import torch
from tests.tiny import LATENT, LATENT_END, LATENT_START, tiny_inputs
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache


_aten = torch.ops.aten
_READS = (
    _aten._local_scalar_dense.default,  # item, bool, int, float
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten.repeat_interleave.Tensor,
    _aten._unique2.default,
    _aten.equal.default,
)


class HostWaits(TorchDispatchMode):
    """Counts operations that read values of tensors, for which a GPU would have to finish first."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        has_mask_as_index = func is _aten.index.Tensor and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += func in _READS or has_mask_as_index
        return func(*args, **(kwargs or {}))


class ListReads(TorchFunctionMode):
    """Counts `tolist`, which is no operation."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") == "tolist"
        return func(*args, **(kwargs or {}))


def host_waits(call):
    with HostWaits() as operations, ListReads() as lists:
        call()
    return operations.count + lists.count


def without_block(inputs):
    """Ordinary tokens in the place of the block, for the backbone alone."""
    is_block = torch.isin(inputs["input_ids"], torch.tensor([LATENT_START, LATENT, LATENT_END]))
    return {**inputs, "input_ids": inputs["input_ids"].masked_fill(is_block, 7)}


NUM_LATENTS = 4  # of `tiny_inputs`
LENGTHS = {"padded": (5, 3), "of one length": (5, 5)}


@pytest.fixture(params=LENGTHS)
def lengths(request):
    return LENGTHS[request.param]


@pytest.fixture
def keeps_mask_of_tokens(kind, lengths):
    """Linear attention takes a mask of tokens, from which the other layers make their own: one wait in each step with padding."""
    return kind == "qwen3_5" and len(set(lengths)) > 1


@torch.no_grad()
def test_forward_pass_of_training_waits_three_times_more_than_the_backbone(storm, kind, lengths, keeps_mask_of_tokens):
    inputs = tiny_inputs(kind, lengths, suffix=(LATENT_END, 7, 8))
    labels = inputs["input_ids"].clone()
    labels[:, :-2] = -100
    backbone = host_waits(lambda: storm.backbone(**without_block(inputs), use_cache=False))
    own = 3 + NUM_LATENTS * keeps_mask_of_tokens
    assert host_waits(lambda: storm(**inputs, labels=labels, use_cache=False)) <= backbone + own


def test_prefill_waits_three_times_more_than_the_backbone(storm, kind, lengths, keeps_mask_of_tokens):
    inputs, options = tiny_inputs(kind, lengths), {"max_new_tokens": 1, "do_sample": False, "eos_token_id": 1}
    backbone = host_waits(lambda: storm.backbone.generate(**without_block(inputs), **options, pad_token_id=0))
    own = 3 + NUM_LATENTS * keeps_mask_of_tokens
    assert host_waits(lambda: storm.generate(**inputs, **options)) <= backbone + own


@torch.no_grad()
def test_no_latent_step_waits(storm, kind, lengths, keeps_mask_of_tokens):
    few, many = (tiny_inputs(kind, lengths, num_latents) for num_latents in (2, 8))
    few, many = (host_waits(lambda inputs=inputs: storm(**inputs, use_cache=False)) for inputs in (few, many))
    assert many - few == (8 - 2) * keeps_mask_of_tokens


@torch.no_grad()
def test_no_latent_step_makes_a_mask(storm, kind, lengths, keeps_mask_of_tokens):
    """A prepared mask is a view of one tensor, whatever the step."""
    storages = []
    handle = storm.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: storages.append((kwargs["inputs_embeds"].shape[1], kwargs["attention_mask"])),
        with_kwargs=True,
    )
    try:
        storm(**tiny_inputs(kind, lengths), use_cache=False)
    finally:
        handle.remove()
    masks = [mask for num_tokens, mask in storages if num_tokens == 1]
    assert len(masks) == 3
    if lengths[0] == lengths[1]:
        assert masks == [None] * 3
    else:
        assert {mask.ndim for mask in masks} == {2 if keeps_mask_of_tokens else 4}
        assert len({mask.data_ptr() for mask in masks}) == 1


@torch.no_grad()
def test_hidden_states_of_the_prompt_do_not_outlive_the_prefill(storm, kind):
    inputs = tiny_inputs(kind, num_latents=4)
    prompt_states, alive = [], []

    def watch(module, args, kwargs, output):
        states = output.last_hidden_state
        if states.shape[1] > 2:
            prompt_states.append(weakref.ref(states.untyped_storage()))
        alive.append([one() is not None for one in prompt_states])

    handle = storm.get_decoder().register_forward_hook(watch, with_kwargs=True)
    cache = DynamicCache(config=storm.config.get_text_config())
    try:
        storm.generate(**inputs, cache=cache, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    finally:
        handle.remove()
    assert alive[0] == [True]
    assert alive[-1] == [False]
