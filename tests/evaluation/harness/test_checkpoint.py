import pytest
import torch
from peft import get_peft_model

from storm_hf.checkpoints.adapter import save_storm_config
from storm_hf.checkpoints.loading import is_storm
from storm_hf.errors import CheckpointError, ConfigurationError
from storm_hf.evaluation.harness.checkpoint import load_for_harness, size_pictures
from storm_hf.evaluation.harness.settings import ChatSettings
from storm_hf.training.peft import default_lora


def test_plain_checkpoint_is_loaded_as_it_is(qwen_checkpoint):
    model, processor = load_for_harness(ChatSettings(str(qwen_checkpoint), num_latents=0, device="cpu"))
    assert model.config.model_type == "qwen2_5_vl"
    assert not model.training
    assert processor.video_processor.do_sample_frames is False


def test_plain_checkpoint_cannot_think(qwen_checkpoint):
    with pytest.raises(CheckpointError, match="plain checkpoint, which has no latents"):
        load_for_harness(ChatSettings(str(qwen_checkpoint), num_latents=4, device="cpu"))


def test_storm_is_loaded_as_asked(storm_checkpoint):
    settings = ChatSettings(
        str(storm_checkpoint), device="cpu", dtype="bfloat16", fps=2.0, attn_implementation="eager"
    )
    model, processor = load_for_harness(settings)
    assert is_storm(str(storm_checkpoint))
    assert str(model.dtype) == "torch.bfloat16"
    assert (processor.video_processor.do_sample_frames, processor.video_processor.fps) == (True, 2.0)
    assert model.backbone.config._attn_implementation == "eager"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapter_of_a_plain_checkpoint_is_loaded_as_a_storm(qwen_checkpoint, storm_checkpoint, tmp_path):
    model, processor = load_for_harness(ChatSettings(str(storm_checkpoint), device="cpu"))
    adapted = get_peft_model(model, default_lora(model, r=2))
    adapted.save_pretrained(tmp_path)
    saved = tmp_path / "adapter_config.json"
    saved.write_text(saved.read_text().replace(str(storm_checkpoint), str(qwen_checkpoint)))
    save_storm_config(model.config, tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, _ = load_for_harness(ChatSettings(str(tmp_path), device="cpu", dtype="bfloat16"))
    assert is_storm(str(tmp_path))
    assert (loaded.config.model_type, loaded.config.num_latents) == ("storm", model.config.num_latents)
    assert loaded.get_decoder().embed_tokens.weight.dtype == torch.bfloat16


def test_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        load_for_harness(ChatSettings(str(tmp_path / "nothing"), device="cpu"))


def test_pixels_bound_pictures_and_videos(storm_checkpoint):
    settings = ChatSettings(str(storm_checkpoint), device="cpu", max_pixels=50 * 28 * 28)
    _, processor = load_for_harness(settings)
    for part in (processor.video_processor, processor.image_processor):
        assert part.size["longest_edge"] == 50 * 28 * 28
        assert part.size["shortest_edge"] == 28 * 28


def test_processor_that_does_not_count_pixels_refuses_them(storm_checkpoint):
    _, processor = load_for_harness(ChatSettings(str(storm_checkpoint), device="cpu"))
    processor.video_processor.size = {"height": 28, "width": 28}
    with pytest.raises(ConfigurationError, match="does not size pictures by their pixels"):
        size_pictures(processor, ChatSettings("m", min_pixels=784))
