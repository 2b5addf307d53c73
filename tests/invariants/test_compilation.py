"""Compiled generation with a static cache: the answers of eager generation, and graphs that serve every request of their form."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from tests.tiny import tiny_inputs, tiny_storm
from torch._dynamo.utils import counters
from torch.testing import assert_close
from transformers import CompileConfig
from transformers.generation.utils import GenerateOutput

from storm_hf.model import StormForConditionalGeneration
from storm_hf.model.cache_storm import rollout_state


NEW_TOKENS = 4
compiled_passes: list[torch.fx.GraphModule] = []


def _counting(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """A backend that compiles nothing, and notes each pass through a graph."""

    def run(*args: Any) -> Any:
        compiled_passes.append(graph)
        return graph(*args)

    return run


@pytest.fixture(autouse=True)
def _new_graphs() -> Iterator[None]:
    """No graph of another test is used, and none is left."""
    torch._dynamo.reset()
    counters.clear()
    compiled_passes.clear()
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
    """Answer prompts of some lengths. No graph may break."""
    settings = CompileConfig(fullgraph=True, backend=_counting, mode=None)
    settings._compile_all_devices = True  # a processor too
    compiled = {"cache_implementation": "static", "max_cache_len": 128, "compile_config": settings}
    length = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "return_dict_in_generate": True}
    return storm.generate(**tiny_inputs(kind, lengths), **length, **options, **(compiled if is_compiled else {}))


def assert_same(compiled: GenerateOutput, eager: GenerateOutput) -> None:
    assert torch.equal(compiled.sequences, eager.sequences)
    if "latents" in eager:
        assert_close(compiled.latents, eager.latents, rtol=1e-4, atol=5e-6)


def flipped(step: int, latent: torch.Tensor) -> torch.Tensor:
    return latent.flip(-1)


REQUESTS: list[dict[str, Any]] = [
    {"lengths": (7,), "output_latents": True},
    {"lengths": (9,), "num_latents": 1},
    {"lengths": (3,), "num_latents": 6, "output_latents": True},
    {"lengths": (9,), "num_latents": 0},
    {"lengths": (4,), "latent_intervention": lambda step, latent: -latent},
    {"lengths": (4,), "num_latents": 3, "latent_intervention": flipped, "output_latents": True},
]


def test_no_request_compiles_after_the_first_one_and_answers_are_those_of_eager_passes(storm, kind):
    answer(storm, kind)
    after_warm_up = num_graphs()
    assert after_warm_up == 3  # a latent, the last one with what follows it, a token
    compiled = [answer(storm, kind, **request) for request in REQUESTS]
    assert num_graphs() == after_warm_up
    for request, output in zip(REQUESTS, compiled, strict=True):
        assert_same(output, answer(storm, kind, **request, is_compiled=False))


@pytest.mark.parametrize("num_latents", [0, 1, 5])
def test_every_latent_and_every_token_after_the_first_one_is_a_compiled_pass(qwen, num_latents):
    output = answer(qwen, "qwen2_5_vl", num_latents=num_latents)
    assert len(compiled_passes) == num_latents + NEW_TOKENS - 1
    assert rollout_state(output.cache).compiled_step is None  # who reads on from the cache compiles nothing


def test_batches_of_a_size_compile_once_with_padding_and_once_without(qwen):
    for lengths in ((5, 5), (5, 3)):
        answer(qwen, "qwen2_5_vl", lengths)
    after_warm_up = num_graphs()
    for lengths in ((4, 4), (3, 9), (9, 2), (7, 7)):
        compiled, eager = (
            answer(qwen, "qwen2_5_vl", lengths, is_compiled, output_latents=True) for is_compiled in (True, False)
        )
        assert_same(compiled, eager)
    assert num_graphs() == after_warm_up


@pytest.mark.parametrize(
    ("options", "num_eager"),
    [({"output_hidden_states": True}, 4), ({"prefill_chunk_size": 64, "disable_compile": True}, 4 + NEW_TOKENS - 1)],
    ids=["hidden states", "compilation off"],
)
def test_latents_whose_pass_returns_more_are_not_compiled(qwen, options, num_eager):
    compiled, eager = (
        answer(qwen, "qwen2_5_vl", is_compiled=is_compiled, output_latents=True, **options)
        for is_compiled in (True, False)
    )
    assert_same(compiled, eager)
    assert len(compiled_passes) == 4 + NEW_TOKENS - 1 - num_eager


def test_decoder_that_looks_up_more_than_embeddings_takes_its_latents_as_the_prompt(qwen, monkeypatch):
    monkeypatch.setattr(qwen.config.get_text_config(), "hidden_size_per_layer_input", 8, raising=False)
    answer(qwen, "qwen2_5_vl")
    assert len(compiled_passes) == NEW_TOKENS - 1


def test_prompt_beyond_the_cache_is_compiled_for(qwen):
    """So the count can rise, and `max_cache_len` is of use."""
    answer(qwen, "qwen2_5_vl")
    after_warm_up = num_graphs()
    answer(qwen, "qwen2_5_vl", (150,))
    assert num_graphs() > after_warm_up
