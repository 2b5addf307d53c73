"""Cached features of a frozen vision tower stand for the pixels, in `forward` and in `generate`."""

import pytest
import torch
from tests.tiny import GRID_KINDS, LATENT_END, tiny_inputs, tiny_storm
from torch.testing import assert_close
from transformers.modeling_outputs import ModelOutput

from storm_hf.errors import BackboneError, ConfigurationError
from storm_hf.model.video_features_storm import VideoFeatures, flatten_features, unflatten_features


STORED = ("video_features", "video_deepstack")
GRIDS = torch.tensor([[2, 4, 4], [1, 4, 4]])  # with two by two merging, 8 and 4 tokens


def test_features_are_split_by_video():
    flat = torch.randn(12, 5)
    encoded = unflatten_features(flat, GRIDS)["video"]
    assert isinstance(encoded, ModelOutput)
    assert [len(video) for video in encoded.pooler_output] == [8, 4]
    assert "deepstack_features" not in encoded


def test_flattening_undoes_splitting():
    flat, deepstack = torch.randn(12, 5), torch.randn(3, 12, 5)
    again = flatten_features(unflatten_features(flat, GRIDS, deepstack)["video"])
    assert torch.equal(again["video_features"], flat)
    assert torch.equal(again["video_deepstack"], deepstack)


def test_backbone_without_deepstack_gives_features_alone():
    assert set(flatten_features(VideoFeatures(pooler_output=(torch.randn(8, 5),)))) == {"video_features"}


def test_features_of_another_grid_are_refused():
    with pytest.raises(BackboneError, match="Encode the videos again"):
        unflatten_features(torch.randn(11, 5), GRIDS)


def test_features_without_grids_are_refused():
    with pytest.raises(BackboneError, match="video_grid_thw"):
        unflatten_features(torch.randn(12, 5), None)


@pytest.fixture(scope="module", params=GRID_KINDS)
def pixels_and_features(request):
    """A model, its inputs with pixels, and the same inputs with cached features."""
    model = tiny_storm(request.param)
    pixels = tiny_inputs(request.param, suffix=(LATENT_END,))
    encoded = model.encode_video(
        pixel_values_videos=pixels["pixel_values_videos"], video_grid_thw=pixels["video_grid_thw"]
    )
    others = {name: value for name, value in pixels.items() if name != "pixel_values_videos"}
    return model, pixels, {**others, **encoded}


@torch.no_grad()
def test_forward_with_features_equals_forward_with_pixels(pixels_and_features):
    model, pixels, features = pixels_and_features
    expected, output = model(**pixels), model(**features)
    assert_close(output.logits, expected.logits, rtol=1e-5, atol=1e-6)
    assert_close(output.latents, expected.latents, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_features_are_really_read(pixels_and_features):
    model, _, features = pixels_and_features
    other = {**features, "video_features": torch.zeros_like(features["video_features"])}
    assert (model(**other).logits - model(**features).logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "num_return_sequences": 2},
        {"do_sample": False, "num_beams": 2, "num_return_sequences": 2},
        {"do_sample": False, "num_latents": 2},
    ],
    ids=["greedy", "two samples", "beams", "fewer latents"],
)
def test_generate_with_features_equals_generate_with_pixels(pixels_and_features, options):
    model, pixels, features = pixels_and_features
    answers = []
    for inputs in (pixels, features):
        torch.manual_seed(0)
        answers.append(model.generate(**inputs, max_new_tokens=4, eos_token_id=None, **options))
    assert torch.equal(*answers)


def test_gradient_reaches_the_projector_through_cached_features(pixels_and_features):
    model, _, features = pixels_and_features
    model(**features).logits[:, -1].sum().backward()
    weight = model.model.latent_projector.layers[1].weight
    assert weight.grad.abs().max() > 0
    model.zero_grad()


def test_deepstack_travels_only_where_the_backbone_has_it():
    shapes = {}
    for kind in GRID_KINDS:
        inputs = tiny_inputs(kind)
        encoded = tiny_storm(kind).encode_video(
            pixel_values_videos=inputs["pixel_values_videos"], video_grid_thw=inputs["video_grid_thw"]
        )
        shapes[kind] = {name: tuple(value.shape) for name, value in encoded.items()}
    assert shapes == {
        "qwen2_5_vl": {"video_features": (16, 32)},
        "qwen3_vl": {"video_features": (16, 32), "video_deepstack": (2, 16, 32)},
        "qwen3_5": {"video_features": (16, 32)},
    }


@torch.no_grad()
def test_features_as_they_are_stored_generate_under_autocast_to_bfloat16(pixels_and_features):
    """They lie in float16, which autocast to bfloat16 does not take on a CPU."""
    model, _, features = pixels_and_features
    stored = {name: value.half() if name in STORED else value for name, value in features.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        replies = model.generate(**stored, max_new_tokens=2, do_sample=False)
    assert replies.shape[1] == features["input_ids"].shape[1] + 2


@pytest.mark.parametrize("call", ["forward", "generate"])
@pytest.mark.parametrize("kind", GRID_KINDS)
def test_two_prompts_with_the_video_of_one_are_refused(kind, call):
    model, inputs = tiny_storm(kind), tiny_inputs(kind, prompt_lengths=(5, 5))
    alone = tiny_inputs(kind, prompt_lengths=(5,))
    shared = {**alone, **{name: inputs[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}}
    with pytest.raises(
        ConfigurationError, match=r"of the prompts \(2\), got 1 in `video_grid_thw`. Give each prompt its own"
    ):
        model(**shared) if call == "forward" else model.generate(**shared, max_new_tokens=1)
