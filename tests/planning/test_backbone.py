import json

import pytest
import torch
from tests.processors import stock_processor
from tests.tiny import tiny_config, tiny_processor

from storm_hf.errors import BackboneError, CheckpointError
from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.planning.backbone import KNOWN, clip_of_prompt, clip_tokens, load_backbone
from storm_hf.training.flops import count_parameters


PUBLISHED = {  # parameters of the checkpoints, as the Hub counts them
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_backbone_has_as_many_parameters_as_its_checkpoint(name):
    config = StormConfig(vlm_config=load_backbone(name).config.to_dict(), latent_projector="identity")
    with torch.device("meta"):
        model = StormForConditionalGeneration(config)
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


def test_prompt_without_room_for_a_clip_has_none(qwen_checkpoint):
    backbone = load_backbone(str(qwen_checkpoint))
    assert clip_of_prompt(backbone, 5, num_frames=6).video == 3, "one for each two frames; the rest is text"
    assert clip_of_prompt(backbone, 2, num_frames=6) is None


@pytest.mark.parametrize("kind", ["qwen3_vl", "glm4v"])
def test_tokens_around_a_frame_are_those_that_the_processor_writes(tmp_path, kind):
    processor = stock_processor(kind)
    tiny_config("qwen3_vl").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    written = processor(text=[processor.video_token], videos=[torch.zeros(8, 3, 64, 64)], do_sample_frames=False)
    num_pairs, height, width = written["video_grid_thw"][0].tolist()
    num_video = num_pairs * height * width // processor.video_processor.merge_size**2
    num_beside = len(written["input_ids"][0]) - num_video
    assert load_backbone(str(tmp_path)).tokens_around_frame == num_beside // num_pairs > 0


def test_no_tokens_stand_between_the_frames_of_qwen2_5_vl(qwen_checkpoint):
    assert load_backbone(str(qwen_checkpoint)).tokens_around_frame == 0


def test_clip_of_another_kind_of_processor_needs_its_length(tmp_path):
    tiny_config("smolvlm").save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="--prompt-tokens"):
        clip_tokens(load_backbone(str(tmp_path)), 32, 640, 360)


def test_folder_is_read_and_a_storm_opened(tmp_path, qwen_checkpoint):
    assert load_backbone(str(qwen_checkpoint)).config.model_type == "qwen2_5_vl"
    StormConfig(vlm_config=tiny_config("qwen3_vl"), num_latents=5).save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert (backbone.config.model_type, backbone.storm.num_latents) == ("qwen3_vl", 5)


def test_backbone_that_is_nowhere_is_told_with_what_to_do():
    with pytest.raises(CheckpointError, match="--model"):
        load_backbone("nobody/no-such-model")


def test_model_without_vision_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(BackboneError, match="`qwen2`"):
        load_backbone(str(tmp_path))
