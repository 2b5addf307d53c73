import inspect
import json

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.optional import require
from storm_hf.thought_video import FAMILIES, DiffusersSettings
from storm_hf.thought_video.video_families import KeyFrames


def settings(family="wan2.1-i2v", **others):
    return DiffusersSettings(model="some/model", family=family, **others)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_of_every_family_are_what_it_can_make(family):
    assert settings(family).value("num_frames") % FAMILIES[family].frames_step == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, when diffusers imports its pipelines
def test_pipeline_of_every_family_takes_what_it_is_called_with(family):
    known = FAMILIES[family]
    taken = inspect.signature(getattr(require("diffusers"), known.pipeline).__call__).parameters
    passed = {"height", "width", "num_frames", "num_inference_steps", "guidance_scale", "negative_prompt", "generator"}
    passed |= {"prompt", "output_type"} | ({known.fps_argument} if known.fps_argument else set())
    image = object()
    for key_frames in (KeyFrames((image,)), KeyFrames((image, image)), KeyFrames((image,), image)):
        passed |= set(known.arguments(key_frames, 9))
    assert passed <= set(taken)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_defaults_are_those_of_the_pipeline(family):
    """Wan 2.2 and the sizes of CogVideoX are not its pipeline's but its model card's."""
    own = {"wan2.2-i2v": {"num_inference_steps", "guidance_scale"}, "cogvideox-i2v": {"height", "width"}}
    own["wan2.2-ti2v"] = {"height", "width", "num_frames"}
    known = FAMILIES[family]
    taken = inspect.signature(getattr(require("diffusers"), known.pipeline).__call__).parameters
    names = {"height", "width", "num_frames", "num_inference_steps", "guidance_scale"} - own.get(family, set())
    assert {name: getattr(known, name) for name in names} == {name: taken[name].default for name in names}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"family": "sora"}, "wan2.2-ti2v"),
        ({"num_frames": 80}, "Take 77 or 81"),
        ({"num_frames": 1}, "Take 5 or 9"),
        ({"height": 481}, "multiple of 16"),
        ({"width": 0}, "multiple of 16"),
        ({"family": "ltx-i2v", "width": 48}, "multiple of 32"),
        ({"condition": "prefix"}, "last, first, first_and_last"),
        ({"family": "wan2.2-ti2v", "condition": "first_and_last"}, "last, first but"),
        ({"family": "ltx-condition", "condition": "prefix", "num_prefix_frames": 8}, "Take 9 or 17"),
        ({"family": "ltx-condition", "condition": "prefix", "num_frames": 9}, "shorter than the 9 frames"),
        ({"offload": "disk"}, "none, model, group"),
        ({"dtype": "int8"}, "bfloat16"),
    ],
)
def test_what_a_family_cannot_make_is_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(**wrong)


def test_parameters_say_what_determines_a_video():
    plain, placed, other = (settings(**others).parameters for others in ({}, {"device": "cuda:1"}, {"num_frames": 5}))
    assert plain == placed != other
    assert json.loads(json.dumps(plain))["num_frames"] == 81
