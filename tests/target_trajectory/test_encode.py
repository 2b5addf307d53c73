from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from tests.tiny import tiny_storm

from storm_hf.errors import BackboneError, LatentError
from storm_hf.target_trajectory import encode_frames, encoder_revision


_SIZES = {
    "qwen2_5_vl": ("Qwen2VLVideoProcessor", {"size": {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}}),
    "qwen3_vl": ("Qwen3VLVideoProcessor", {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 32 * 32}}),
    "qwen3_5": ("Qwen3VLVideoProcessor", {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 32 * 32}}),
    "llava_onevision": ("LlavaOnevisionVideoProcessor", {"size": {"height": 28, "width": 28}}),
    "smolvlm": ("SmolVLMVideoProcessor", {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}),
    "internvl": ("InternVLVideoProcessor", {"size": {"height": 32, "width": 32}}),
}
# Of six frames of 56 x 84 pixels: temporal patches and cells.
_SHAPES = {
    "qwen2_5_vl": (3, 6),
    "qwen3_vl": (3, 6),
    "qwen3_5": (3, 6),
    "llava_onevision": (6, 1),
    "smolvlm": (6, 4),
    "internvl": (6, 4),
}


def processor_of(kind):
    name, options = _SIZES[kind]
    if kind.startswith("qwen"):
        options = {**options, "cap_pixels_per_frame": True}
    return SimpleNamespace(video_processor=getattr(transformers, name)(**options))


def clips(*num_frames):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (frames, 56, 84, 3), dtype=np.uint8) for frames in num_frames]


def test_features_have_time_cells_and_hidden_size(kind, storm):
    features = encode_frames(storm, processor_of(kind), clips(6, 6), fps=2.0)
    assert [clip.shape for clip in features] == [(*_SHAPES[kind], 32)] * 2
    assert features[0].dtype == np.float16


def test_batches_and_neighbours_change_nothing(kind, storm):
    mixed = clips(6, 6, 4, 6)
    alone = [encode_frames(storm, processor_of(kind), [clip], fps=2.0)[0] for clip in mixed]
    together = encode_frames(storm, processor_of(kind), mixed, fps=2.0, batch_size=2)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_time_comes_first(kind, storm):
    """Encoding the first frames alone gives the first temporal patches."""
    clip = clips(6)[0]
    first, whole = encode_frames(storm, processor_of(kind), [clip[:2], clip], fps=2.0)
    np.testing.assert_allclose(first, whole[: len(first)], atol=2e-3)


def test_storm_encodes_as_its_backbone(kind, storm):
    processor = processor_of(kind)
    ours, plain = (encode_frames(model, processor, clips(4), fps=2.0)[0] for model in (storm, storm.backbone))
    np.testing.assert_array_equal(ours, plain)


def test_cells_are_in_row_order():
    """Only the right half of the second row of cells changes: the last cell of each patch must be the one that moves most."""
    model, processor = tiny_storm("qwen2_5_vl"), processor_of("qwen2_5_vl")
    dark = np.zeros((2, 56, 56, 3), dtype=np.uint8)
    lit = dark.copy()
    lit[:, 28:, 28:] = 255
    first, second = encode_frames(model, processor, [dark, lit], fps=2.0)
    assert np.abs(first - second).sum(axis=-1).argmax(axis=1).tolist() == [3]


def test_model_stays_in_its_mode_and_keeps_no_gradient():
    model = tiny_storm("qwen2_5_vl").train()
    encode_frames(model, processor_of("qwen2_5_vl"), clips(2), fps=2.0)
    assert model.training
    assert model.backbone.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_backbones_encode():
    model = tiny_storm("llava_onevision").to(torch.bfloat16)
    features = encode_frames(model, processor_of("llava_onevision"), clips(2), fps=2.0)[0]
    assert np.isfinite(features).all()


def test_revision_names_the_weights_of_the_tower_alone():
    model = tiny_storm("qwen2_5_vl")
    before = encoder_revision(model)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    assert encoder_revision(model) == before == encoder_revision(model.backbone)
    with torch.no_grad():
        next(model.backbone.base_model.visual.parameters()).add_(1)
    assert encoder_revision(model) != before


def test_clips_that_are_no_frames_are_refused():
    with pytest.raises(LatentError, match="float32"):
        encode_frames(
            tiny_storm("qwen2_5_vl"), processor_of("qwen2_5_vl"), [np.zeros((2, 56, 56, 3), np.float32)], fps=2.0
        )


def test_processor_without_video_is_refused():
    with pytest.raises(BackboneError, match="video processor"):
        encode_frames(tiny_storm("qwen2_5_vl"), SimpleNamespace(), clips(2), fps=2.0)


def test_overflowing_features_are_refused():
    model = tiny_storm("qwen2_5_vl")
    with torch.no_grad():
        model.backbone.base_model.visual.merger.mlp[-1].bias.fill_(1e6)
    with pytest.raises(BackboneError, match="finite in float16"):
        encode_frames(model, processor_of("qwen2_5_vl"), clips(2), fps=2.0)


def test_single_frame_has_the_cells_of_a_frame_and_no_mark_of_the_end():
    """LLaVA-OneVision writes one more token after the frames of a video."""
    storm, processor = tiny_storm("llava_onevision"), processor_of("llava_onevision")
    frame = clips(1)[0]
    (alone,) = encode_frames(storm, processor, [frame], fps=2.0)
    (twice,) = encode_frames(storm, processor, [frame.repeat(2, axis=0)], fps=2.0)
    assert alone.shape == (1, *_SHAPES["llava_onevision"][1:], 32)
    np.testing.assert_allclose(alone, twice[:1], atol=2e-3)
