"""Table of the video model families of diffusers, one entry each. No code branches on a name.

Sizes, rates and guidance are those of the pipelines in diffusers 0.42. Check the licence of the weights that you load.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PIL import Image

from storm_hf.errors import ConfigurationError
from storm_hf.optional import require


@dataclass(frozen=True)
class KeyFrames:
    """Conditioning frames of the clip, in the size of the video to generate.

    Args:
        frames (`tuple[Image.Image, ...]`):
            The frames that the video begins with, in order: one, or a prefix of several.
        last (`Image.Image`, *optional*):
            The frame that it ends with.
    """

    frames: tuple[Image.Image, ...]
    last: Image.Image | None = None


@dataclass(frozen=True, kw_only=True)
class VideoFamily:
    """One kind of video model.

    Args:
        source (`str`):
            Recorded source of its videos.
        pipeline (`str`):
            Its class in diffusers.
        arguments (`Callable[[KeyFrames, int], dict[str, Any]]`):
            Function from key frames and the number of frames to the arguments of the pipeline.
        conditions (`tuple[str, ...]`):
            Possible conditions: `last` seen frame or `first` frame to begin with, `first_and_last` to go between,
            `prefix` to go on from.
        height (`int`), width (`int`), num_frames (`int`), fps (`int`):
            Height it was trained with.
        num_inference_steps (`int`), guidance_scale (`float`):
            Of its sampler.
        frames_step (`int`):
            It makes `frames_step * n + 1` frames.
        size_multiple (`int`):
            Height and width are multiples of it, in pixels.
        license (`str`):
            Of the weights usually loaded.
        fps_argument (`str`, *optional*):
            Name under which it takes the rate.
        full_precision (`tuple[str, ...]`, *optional*):
            Parts kept in float32, whatever the others are in.
        needs (`tuple[str, ...]`, *optional*):
            Optional packages that its pipeline cannot do without.
    """

    source: str
    pipeline: str
    arguments: Callable[[KeyFrames, int], dict[str, Any]]
    conditions: tuple[str, ...]
    height: int
    width: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    frames_step: int
    size_multiple: int
    license: str
    fps_argument: str | None = None
    full_precision: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def _as_image(key_frames: KeyFrames, num_frames: int) -> dict[str, Any]:
    return {"image": key_frames.frames[-1]}


def _as_image_and_last_image(key_frames: KeyFrames, num_frames: int) -> dict[str, Any]:
    return {"image": key_frames.frames[-1], "last_image": key_frames.last}


def _as_image_or_video(key_frames: KeyFrames, num_frames: int) -> dict[str, Any]:
    return {"video": list(key_frames.frames)} if len(key_frames.frames) > 1 else {"image": key_frames.frames[0]}


def _as_conditions(key_frames: KeyFrames, num_frames: int) -> dict[str, Any]:
    """LTX takes the frame at which a picture or a video stands; one at the end stands in the last group of eight."""
    condition = require("diffusers.pipelines.ltx.pipeline_ltx_condition").LTXVideoCondition
    video = list(key_frames.frames)
    conditions = [condition(video=video) if len(video) > 1 else condition(image=video[0])]
    if key_frames.last is not None:
        conditions.append(condition(image=key_frames.last, frame_index=num_frames - 1))
    return {"conditions": conditions}


_BEGINNINGS = ("last", "first")
_WAN: Mapping[str, Any] = {
    "source": "wan",
    "pipeline": "WanImageToVideoPipeline",
    "frames_step": 4,
    "license": "Apache-2.0",
    "full_precision": ("vae",),
    "needs": ("ftfy",),
}
_WAN_I2V: Mapping[str, Any] = {
    **_WAN,
    "arguments": _as_image_and_last_image,
    "conditions": (*_BEGINNINGS, "first_and_last"),
    "height": 480,
    "width": 832,
    "num_frames": 81,
    "fps": 16,
    "size_multiple": 16,
}
_LTX: Mapping[str, Any] = {
    "source": "ltx",
    "height": 512,
    "width": 704,
    "num_frames": 161,
    "fps": 25,
    "num_inference_steps": 50,
    "guidance_scale": 3.0,
    "frames_step": 8,
    "size_multiple": 32,
    "license": "other",
    "fps_argument": "frame_rate",
}

FAMILIES: Mapping[str, VideoFamily] = MappingProxyType(
    {
        "wan2.1-i2v": VideoFamily(**_WAN_I2V, num_inference_steps=50, guidance_scale=5.0),
        "wan2.2-i2v": VideoFamily(**_WAN_I2V, num_inference_steps=40, guidance_scale=3.5),
        "wan2.2-ti2v": VideoFamily(
            **_WAN,
            arguments=_as_image,
            conditions=_BEGINNINGS,
            height=704,
            width=1280,
            num_frames=121,
            fps=24,
            num_inference_steps=50,
            guidance_scale=5.0,
            size_multiple=32,
        ),
        "ltx-i2v": VideoFamily(
            **_LTX, pipeline="LTXImageToVideoPipeline", arguments=_as_image, conditions=_BEGINNINGS
        ),
        "ltx-condition": VideoFamily(
            **_LTX,
            pipeline="LTXConditionPipeline",
            arguments=_as_conditions,
            conditions=(*_BEGINNINGS, "first_and_last", "prefix"),
        ),
        "cogvideox-i2v": VideoFamily(
            source="cogvideox",
            pipeline="CogVideoXImageToVideoPipeline",
            arguments=_as_image,
            conditions=_BEGINNINGS,
            height=480,
            width=720,
            num_frames=49,
            fps=8,
            num_inference_steps=50,
            guidance_scale=6.0,
            frames_step=4,
            size_multiple=16,
            license="other",
        ),
        "cosmos2-video2world": VideoFamily(
            source="cosmos",
            pipeline="Cosmos2VideoToWorldPipeline",
            arguments=_as_image_or_video,
            conditions=(*_BEGINNINGS, "prefix"),
            height=704,
            width=1280,
            num_frames=93,
            fps=16,
            num_inference_steps=35,
            guidance_scale=7.0,
            frames_step=4,
            size_multiple=16,
            license="other",
            fps_argument="fps",
        ),
    }
)


def family_of(name: str) -> VideoFamily:
    """Look up a family.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    if name not in FAMILIES:
        raise ConfigurationError(f"Expected one of the families {', '.join(FAMILIES)} but got {name!r}.")
    return FAMILIES[name]
