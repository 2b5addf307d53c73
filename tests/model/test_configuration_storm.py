import json

import pytest
from tests.tiny import LATENT, LATENT_END, LATENT_START, tiny_config, tiny_storm
from transformers import CONFIG_MAPPING, AutoConfig

from storm_hf.errors import ConfigurationError
from storm_hf.model import StormConfig, StormForConditionalGeneration


IDS = {"latent_start_token_id": LATENT_START, "latent_token_id": LATENT, "latent_end_token_id": LATENT_END}


def implementation_set_later(model, value, folder):
    model.set_attn_implementation(value)
    return model


def implementation_loaded(model, value, folder):
    model.save_pretrained(folder)
    return StormForConditionalGeneration.from_pretrained(folder, attn_implementation=value)


def test_configuration_survives_json(kind, tmp_path):
    config = StormConfig(vlm_config=tiny_config(kind), num_latents=3, latent_projector="mlp", latent_scale=0.25, **IDS)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, StormConfig)
    assert type(loaded.vlm_config) is type(config.vlm_config)
    assert json.loads(loaded.to_json_string(use_diff=False)) == {
        **json.loads(config.to_json_string(use_diff=False)),
        "_name_or_path": str(tmp_path),
        "transformers_version": loaded.transformers_version,
    }


def test_saved_configuration_names_the_code_of_every_auto_class(tmp_path):
    StormConfig(vlm_config=tiny_config("qwen3_vl")).save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForImageTextToText",
        "AutoModelForMultimodalLM",
    }


def test_backbone_may_be_given_as_a_dict():
    vlm_config = tiny_config("qwen2_5_vl").to_dict()
    config = StormConfig(vlm_config=vlm_config)
    assert isinstance(config.vlm_config, CONFIG_MAPPING["qwen2_5_vl"])


def test_defaults_name_no_token_by_number():
    config = StormConfig(vlm_config=tiny_config("qwen3_vl"))
    assert config.latent_block_ids == (None, None, None)
    assert config.num_latents == 8


def test_sizes_are_those_of_the_language_model(kind):
    config = StormConfig(vlm_config=tiny_config(kind, vocab_size=144))
    text_config = config.get_text_config()
    assert text_config is config.vlm_config.get_text_config()
    assert (config.hidden_size, config.vocab_size) == (32, 144)
    config.vocab_size = 160
    assert text_config.vocab_size == 160


def test_vision_tokens_are_those_of_the_backbone():
    grids, frames = StormConfig(vlm_config=tiny_config("qwen3_vl")), StormConfig(vlm_config=tiny_config("smolvlm"))
    assert (grids.image_token_id, grids.video_token_id) == (100, 101)
    assert (frames.image_token_id, frames.video_token_id) == (100, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_latents": 65}, "max_num_latents"),
        ({"num_latents": -1}, "between 0 and"),
        ({"latent_projector": "conv"}, "`latent_projector` must be one of linear, mlp, identity, got 'conv'"),
        ({"latent_attention": "wide"}, "`latent_attention` must be one of full, step, got 'wide'"),
        ({"latent_token_id": 110}, "add_latent_tokens"),
        ({"latent_token_id": 110, "latent_start_token_id": 110, "latent_end_token_id": 112}, "three different"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        StormConfig(vlm_config=tiny_config("qwen3_vl"), **settings)


def test_tied_embeddings_are_those_of_the_backbone():
    config = StormConfig(vlm_config=tiny_config("qwen2_5_vl"))
    config.tie_word_embeddings = True
    assert config.vlm_config.tie_word_embeddings
    assert StormConfig(**config.to_dict()).tie_word_embeddings
    config.vlm_config.tie_word_embeddings = False
    assert not config.tie_word_embeddings


def test_number_of_latents_that_is_given_while_loading_is_checked(tmp_path):
    tiny_storm("qwen2_5_vl").save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="between 0 and `max_num_latents` = 64, got 65"):
        StormForConditionalGeneration.from_pretrained(tmp_path, num_latents=65)
    assert StormForConditionalGeneration.from_pretrained(tmp_path, num_latents=64).config.num_latents == 64


@pytest.mark.parametrize("takes", [implementation_set_later, implementation_loaded], ids=["set", "loaded"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("eager", ["eager"] * 4),
        ({"text_config": "eager"}, ["sdpa", "sdpa", "eager", "sdpa"]),
        ({"vision_config": "eager"}, ["sdpa", "sdpa", "sdpa", "eager"]),
        ({"vlm_config": {"text_config": "eager"}}, ["sdpa", "sdpa", "eager", "sdpa"]),
        ({"vlm_config": "eager", "text_config": "sdpa"}, ["sdpa", "eager", "sdpa", "sdpa"]),
        ({"": "eager", "text_config": "eager"}, ["eager", "sdpa", "eager", "sdpa"]),
    ],
)
def test_attention_is_set_by_the_parts_of_the_backbone(takes, value, expected, tmp_path):
    """As one gives it to the backbone itself: `{"text_config": ...}` was dropped in silence."""
    config = takes(tiny_storm("qwen2_5_vl"), value, tmp_path).config
    parts = (config, config.vlm_config, config.vlm_config.text_config, config.vlm_config.vision_config)
    assert [part._attn_implementation for part in parts] == expected


def test_experts_are_set_by_the_parts_of_the_backbone():
    config = StormConfig(vlm_config=tiny_config("qwen3_vl"), experts_implementation={"text_config": "batched_mm"})
    parts = (config, config.vlm_config, config.vlm_config.text_config, config.vlm_config.vision_config)
    assert [part._experts_implementation for part in parts] == [None, None, "batched_mm", None]
