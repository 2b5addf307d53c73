"""Compiled generation with a static cache: the answers of eager generation, and graphs that serve every request of their form."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.tiny import tiny_inputs, tiny_storm
from torch._dynamo.utils import counters
from transformers import CompileConfig
from transformers.generation.utils import GenerateOutput

from storm_hf.model import StormForConditionalGeneration


NEW_TOKENS = 4


@pytest.fixture(autouse=True)
def _new_graphs() -> Iterator[None]:
    """No graph of another test is used, and none is left."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def qwen() -> StormForConditionalGeneration:
    return tiny_storm("qwen2_5_vl")


def num_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def answer(
    storm: StormForConditionalGeneration,
    kind: str,
    lengths: tuple[int, ...] = (5,),
    is_compiled: bool = True,
    **options: Any,
) -> GenerateOutput:
    """Answer prompts of some lengths. The cheapest backend shows what is compiled anew, and no graph may break."""
    settings = CompileConfig(fullgraph=True, backend="eager", mode=None)
    settings._compile_all_devices = True  # a processor too
    compiled = {"cache_implementation": "static", "max_cache_len": 128, "compile_config": settings}
    length = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "return_dict_in_generate": True}
    return storm.generate(**tiny_inputs(kind, lengths), **length, **options, **(compiled if is_compiled else {}))


REQUESTS: list[dict[str, Any]] = [
    {"lengths": (7,)},
    {"lengths": (9,), "num_latents": 2},
    {"lengths": (3,), "num_latents": 6, "output_latents": True},
    {"lengths": (9,), "num_latents": 0},
    {"lengths": (4,), "latent_intervention": lambda step, latent: -latent},
    {"lengths": (4,), "latent_intervention": lambda step, latent: latent.flip(0), "output_latents": True},
]


def test_no_request_compiles_after_the_first_one_and_answers_are_those_of_eager_steps(storm, kind):
    answer(storm, kind)
    after_warm_up = num_graphs()
    assert after_warm_up > 0
    compiled = [answer(storm, kind, **request) for request in REQUESTS]
    assert num_graphs() == after_warm_up
    for request, output in zip(REQUESTS, compiled, strict=True):
        assert torch.equal(output.sequences, answer(storm, kind, **request, is_compiled=False).sequences)


def test_batches_of_a_size_compile_once_with_padding_and_once_without(qwen):
    kind, storm = "qwen2_5_vl", qwen
    answer(storm, kind, (5, 5))
    answer(storm, kind, (5, 3))
    after_warm_up = num_graphs()
    for lengths in ((4, 4), (3, 9), (9, 2), (7, 7)):
        assert torch.equal(
            answer(storm, kind, lengths).sequences, answer(storm, kind, lengths, is_compiled=False).sequences
        )
    assert num_graphs() == after_warm_up


def test_prompt_beyond_the_cache_is_compiled_for(qwen):
    """So the count can rise, and `max_cache_len` is of use."""
    answer(qwen, "qwen2_5_vl")
    after_warm_up = num_graphs()
    answer(qwen, "qwen2_5_vl", (150,))
    assert num_graphs() > after_warm_up
