"""A run starts from a plain checkpoint or a STORM, and finds its videos from anywhere."""

from pathlib import Path

import pytest
import torch
from tests.training.tiny_videos import load_tiny, write_thoughts

from storm_hf.errors import CheckpointError
from storm_hf.training.loading import StormModelConfig, load_rows, load_storm


PROMPT = [{"role": "user", "content": [{"type": "text", "text": "Which cup?"}]}]


def num_placeholders(processor):
    return processor.apply_chat_template(PROMPT, add_generation_prompt=True, tokenize=False).count("<|latent|>")


@pytest.fixture(scope="module")
def storm_checkpoint(qwen_checkpoint, tmp_path_factory):
    """A STORM with three latents, saved with its processor."""
    model, processor = load_tiny(qwen_checkpoint, num_latents=3)
    folder = tmp_path_factory.mktemp("storm")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("num_latents", "expected"), [(None, 8), (2, 2), (0, 0)])
def test_plain_checkpoint_becomes_a_storm(qwen_checkpoint, num_latents, expected):
    model, processor = load_storm(StormModelConfig(model_name_or_path=str(qwen_checkpoint)), num_latents)
    assert model.config.num_latents == expected
    assert num_placeholders(processor) == expected


@pytest.mark.parametrize(("num_latents", "expected"), [(None, 3), (5, 5), (0, 0)])
def test_storm_is_loaded_with_its_own_weights(storm_checkpoint, num_latents, expected):
    args = StormModelConfig(model_name_or_path=str(storm_checkpoint))
    model, processor = load_storm(args, num_latents)
    assert model.config.num_latents == expected
    assert num_placeholders(processor) == expected
    original, _ = load_storm(args)
    for name, weight in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_projector_and_scale_of_a_plain_checkpoint_can_be_chosen(qwen_checkpoint):
    args = StormModelConfig(
        model_name_or_path=str(qwen_checkpoint), latent_projector="identity", latent_scale=1.0, dtype="bfloat16"
    )
    model, _ = load_storm(args, 2)
    assert model.config.latent_projector == "identity"
    assert model.config.latent_scale == 1.0
    assert model.dtype == torch.bfloat16


def test_storm_keeps_its_projector(storm_checkpoint):
    args = StormModelConfig(model_name_or_path=str(storm_checkpoint), latent_projector="identity")
    with pytest.raises(CheckpointError, match="Expected `latent_projector: linear`"):
        load_storm(args)


def test_number_of_frames_is_saved_with_the_processor(qwen_checkpoint, tmp_path):
    _, processor = load_storm(StormModelConfig(model_name_or_path=str(qwen_checkpoint), num_frames=2))
    processor.save_pretrained(tmp_path)
    sampler = type(processor).from_pretrained(tmp_path).video_processor
    assert (sampler.do_sample_frames, sampler.num_frames, sampler.fps) == (True, 2, None)


def test_paths_in_a_folder_are_made_absolute(tmp_path):
    splits = load_rows(str(write_thoughts(tmp_path, num_rows=2)))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "test": 1}
    for row in splits["train"]:
        for name in ("video", "thought_video"):
            assert Path(row[name]).is_absolute()
            assert Path(row[name]).is_file()


def test_missing_videos_stay_missing(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"video": "a.mp4", "thought_video": "b.mp4"}\n{"video": null}\n')
    rows = load_rows(str(tmp_path))["train"]
    assert rows["video"] == [str(tmp_path / "a.mp4"), None]
