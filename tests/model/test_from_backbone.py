"""A plain checkpoint becomes a STORM, and stays itself."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from tests.tiny import KINDS, enlarge_weights, tiny_config, tiny_inputs, tiny_processor, tiny_tokenizer
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, Qwen2Config

from storm_hf.errors import BackboneError, ConfigurationError
from storm_hf.model import StormForConditionalGeneration, add_latent_tokens


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A saved plain backbone, and the STORM made of it."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    plain = AutoModelForImageTextToText.from_config(tiny_config(kind)).eval()
    enlarge_weights(plain)
    plain.save_pretrained(folder)
    processor = add_latent_tokens(tiny_processor(), num_latents=3)
    storm = StormForConditionalGeneration.from_backbone(folder, num_latents=3, processor=processor)
    return kind, plain, storm.eval()


def test_weights_are_those_of_the_plain_checkpoint(made):
    _, plain, storm = made
    loaded = storm.backbone.state_dict()
    assert set(loaded) == set(plain.state_dict())
    for name, weight in plain.state_dict().items():
        assert torch.equal(loaded[name][: len(weight)] if weight.ndim else loaded[name], weight), name


def test_vocabulary_grows_to_hold_the_latent_tokens(made):
    _, _, storm = made
    size = storm.get_input_embeddings().weight.shape[0]
    assert max(storm.config.latent_block_ids) < size == storm.config.vocab_size
    assert storm.lm_head.weight.shape[0] == size


def test_latents_are_scaled_to_the_size_of_token_embeddings(made):
    _, plain, storm = made
    size = plain.get_input_embeddings().weight.square().mean().sqrt().item()
    assert storm.config.latent_scale == pytest.approx(size, rel=1e-5)
    assert storm.model.config.latent_scale == storm.config.latent_scale


@torch.no_grad()
def test_made_model_answers_without_latents_as_the_plain_one(made):
    kind, plain, storm = made
    inputs = tiny_inputs(kind, num_latents=0)
    assert_close(storm(**inputs).logits[..., :128], plain(**inputs).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("save_options", [{}, {"save_original_format": True}], ids=["our names", "original names"])
@torch.no_grad()
def test_made_model_is_the_same_after_saving_and_loading(made, tmp_path, save_options):
    kind, _, storm = made
    storm.save_pretrained(tmp_path, **save_options)
    again, info = StormForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert {name for name, keys in info.items() if keys} == set()
    assert again.state_dict().keys() == storm.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in storm.state_dict().items())
    assert again.config.latent_scale == storm.config.latent_scale
    assert again.config.latent_block_ids == storm.config.latent_block_ids
    inputs = tiny_inputs(kind, num_latents=0)
    assert torch.equal(again.eval()(**inputs).logits, storm(**inputs).logits)


def test_saved_names_are_those_of_the_model_so_that_a_trainer_resumes_every_weight(made, tmp_path):
    _, _, storm = made
    storm.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(storm.state_dict()) - set(saved) <= set(storm.all_tied_weights_keys)
    assert set(saved) <= set(storm.state_dict())


def test_checkpoint_with_spare_rows_is_not_resized(qwen_checkpoint):
    model = StormForConditionalGeneration.from_backbone(qwen_checkpoint, num_latents=2, latent_scale=0.3)
    plain = AutoModelForImageTextToText.from_pretrained(qwen_checkpoint)
    assert torch.equal(model.get_input_embeddings().weight, plain.get_input_embeddings().weight)
    assert (model.config.num_latents, model.config.latent_scale) == (2, 0.3)
    assert model.generation_config.eos_token_id == plain.generation_config.eos_token_id


def test_text_only_checkpoint_is_refused(tmp_path):
    config = Qwen2Config(
        vocab_size=330, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="video-language backbone"):
        StormForConditionalGeneration.from_backbone(tmp_path)


def test_storm_is_not_made_a_storm_again(qwen_checkpoint, tmp_path):
    StormForConditionalGeneration.from_backbone(qwen_checkpoint).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=f"{tmp_path}, which is one. Open it with `from_pretrained`"):
        StormForConditionalGeneration.from_backbone(tmp_path, processor=tiny_processor())


def test_plain_checkpoint_is_not_opened_as_a_storm(qwen_checkpoint):
    with pytest.raises(BackboneError, match="a plain one of the type `qwen2_5_vl`. Make a STORM of it with"):
        StormForConditionalGeneration.from_pretrained(qwen_checkpoint)


def test_bound_is_raised_to_the_latents_that_are_asked_for_and_a_scale_may_be_a_whole_number(qwen_checkpoint):
    config = StormForConditionalGeneration.from_backbone(qwen_checkpoint, num_latents=70, latent_scale=2).config
    assert (config.num_latents, config.max_num_latents, config.latent_scale) == (70, 70, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent_scale": 0.0}, "`latent_scale` must be above 0, got 0.0"),
        ({"thought_adapter": LoraConfig(r=2)}, "to be a dict with arguments of a LoraConfig.*, got LoraConfig"),
        ({"output_loading_info": True}, "got `output_loading_info`. Leave it out"),
        ({"config": None}, "got `config`. Leave it out"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used_are_refused_before_anything_is_loaded(
    given, message, qwen_checkpoint, monkeypatch
):
    monkeypatch.setattr(StormForConditionalGeneration, "from_pretrained", None)
    with pytest.raises(ConfigurationError, match=message):
        StormForConditionalGeneration.from_backbone(qwen_checkpoint, **given)


def test_place_of_the_weights_is_the_place_of_the_configuration(tmp_path):
    AutoModelForImageTextToText.from_config(tiny_config("qwen2_5_vl")).save_pretrained(tmp_path / "vlm")
    processor = add_latent_tokens(tiny_processor(), num_latents=3)
    storm = StormForConditionalGeneration.from_backbone(tmp_path, processor=processor, subfolder="vlm")
    assert storm.config.vlm_config.model_type == "qwen2_5_vl"
