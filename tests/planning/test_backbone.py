import json

import pytest
import torch
from tests.tiny import tiny_config, tiny_processor

from storm_hf.errors import BackboneError, CheckpointError
from storm_hf.planning.backbone import KNOWN, load_backbone, without_weights
from storm_hf.planning.clip import clip_of_prompt, clip_tokens
from storm_hf.planning.shape import DecoderShape
from storm_hf.training.flops import count_parameters


PUBLISHED = {  # parameters of the checkpoints, as the Hub counts them
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_backbone_has_as_many_parameters_as_its_checkpoint(name):
    model = without_weights(load_backbone(name), num_latents=8, latent_projector="identity")
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}
    assert count_parameters(model).total == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", (640, 360), 16 * 13 * 23),
        ("Qwen/Qwen2.5-VL-7B-Instruct", (1280, 720), 16 * 26 * 46),
        ("Qwen/Qwen3-VL-8B-Instruct", (640, 360), 16 * 11 * 20),
        ("Qwen/Qwen3-VL-8B-Instruct", (1280, 720), 16 * 20 * 36),  # more pixels than a clip may have
    ],
)
def test_clip_has_the_tokens_of_its_resized_frames(name, size, tokens):
    assert clip_tokens(load_backbone(name), 32, *size).video == tokens


def test_tokens_are_those_that_the_processor_makes(qwen_checkpoint):
    processor = tiny_processor().video_processor
    frames = torch.zeros(6, 3, 60, 110, dtype=torch.uint8)
    real = processor([frames], return_tensors="pt", do_sample_frames=False)
    clip = clip_tokens(load_backbone(str(qwen_checkpoint)), 6, width=110, height=60)
    assert clip.patches == int(real["video_grid_thw"].prod())
    assert clip.patch_pixels * clip.patches == real["pixel_values_videos"].numel()


def test_length_of_a_prompt_gives_the_clip_behind_it(qwen_checkpoint):
    backbone = load_backbone(str(qwen_checkpoint))
    given = clip_tokens(backbone, 6, 110, 60)
    assert clip_of_prompt(backbone, given.video, 6) == given


def test_clip_of_another_kind_of_processor_needs_its_length(tmp_path):
    tiny_config("smolvlm").save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="--prompt-tokens"):
        clip_tokens(load_backbone(str(tmp_path)), 32, 640, 360)


def test_folder_is_read_and_a_storm_opened(tmp_path, qwen_checkpoint):
    from storm_hf.model import StormConfig

    assert load_backbone(str(qwen_checkpoint)).config.model_type == "qwen2_5_vl"
    StormConfig(vlm_config=tiny_config("qwen3_vl"), num_latents=5).save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert (backbone.config.model_type, backbone.storm.num_latents) == ("qwen3_vl", 5)


def test_backbone_that_is_nowhere_is_told_with_what_to_do():
    with pytest.raises(CheckpointError, match="--config"):
        load_backbone("nobody/no-such-model")


def test_model_without_vision_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(BackboneError, match="`qwen2`"):
        load_backbone(str(tmp_path))


def test_layers_of_another_kind_are_refused():
    with pytest.raises(BackboneError, match="full_attention and linear_attention"):
        DecoderShape.of(tiny_config("qwen3_5"))


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "smolvlm", "internvl"])
def test_matrices_of_a_layer_are_counted(kind):
    from transformers import AutoModelForImageTextToText

    config = tiny_config(kind)
    with torch.device("meta"):
        layer = AutoModelForImageTextToText.from_config(config).get_decoder().layers[0]
    matrices = [parameter for parameter in layer.parameters() if parameter.ndim == 2]
    assert DecoderShape.of(config).layer_matrices == sum(matrix.numel() for matrix in matrices)
