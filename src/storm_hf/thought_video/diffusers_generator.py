"""Thought videos of a diffusers model, from frames of the clip and a prompt.

Axes: T frames, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from storm_hf.annotations.record import Annotation
from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.optional import require
from storm_hf.pipeline.workspace import folder_revision
from storm_hf.thought_video.clip_part import cropped_to, read_last_seen, read_seen
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.thought_video.video_families import KeyFrames, VideoFamily, family_of


_OFFLOADS = ("none", "model", "group")
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class DiffusersSettings:
    """Settings of the model, its conditioning frames and its sampling.

    Args:
        model (`str`):
            A repository on the Hub in the format of diffusers, or a folder.
        family (`str`):
            Model family: a key of `FAMILIES`, such as `wan2.2-ti2v`.
        revision (`str`, *optional*):
            Commit or branch on the Hub. The commit that was loaded is recorded.
        license (`str`, *optional*):
            Licence of its videos; by default what its family usually has.
        dtype (`str`, *optional*, defaults to `"bfloat16"`):
            `float32`, `bfloat16` or `float16`. What its family wants in float32 stays there.
        device (`str`, *optional*):
            By default `cuda` where there is one, else `cpu`.
        offload (`str`, *optional*, defaults to `"none"`):
            Keeps parts off the device while they do not work: `model` one part at a time, `group` one block of layers at a
            time, which is slower and smaller.
        condition (`str`, *optional*, defaults to `"last"`):
            Conditioning key frames. `last`: it goes on from the last frame that the question sees. `first`: it begins
            with the first one. `first_and_last`: it goes from the first to the last. `prefix`: it goes on from the last
            `num_prefix_frames`.
        num_prefix_frames (`int`, *optional*, defaults to `9`):
            Frames of a prefix, at the rate of the video: a multiple of the family's `frames_step`, and one.
        negative_prompt (`str`, *optional*):
            Negative prompt.
        height (`int`, *optional*), width (`int`, *optional*):
            Of the video in pixels. Key frames are scaled and cropped in the middle.
        num_frames (`int`, *optional*):
            Of the video.
        fps (`int`, *optional*):
            Rate at which it is shown.
        num_inference_steps (`int`, *optional*):
            Of the sampler.
        guidance_scale (`float`, *optional*):
            Weight of the prompt (classifier-free guidance).
        call (`Mapping[str, Any]`, *optional*):
            More for the pipeline's call, such as `guidance_scale_2`.

    Raises:
        ConfigurationError: If a value is none of those above, or the family cannot make such a video; the message says what
            it can.
    """

    model: str
    family: str
    revision: str | None = None
    license: str | None = None
    dtype: str = "bfloat16"
    device: str | None = None
    offload: str = "none"
    condition: str = "last"
    num_prefix_frames: int = 9
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    call: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        family = family_of(self.family)
        for name, known in (("offload", _OFFLOADS), ("dtype", _DTYPES), ("condition", family.conditions)):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"Expected {name} of {self.family} among {', '.join(known)} but got {getattr(self, name)!r}."
                )
        self._check_numbers(family)

    def value(self, name: str) -> Any:
        """A setting, or what the family was trained for where it was left out."""
        own = getattr(self, name)
        return getattr(family_of(self.family), name) if own is None else own

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters that determine a video besides the question, the prompt and the seed, JSON-serializable."""
        trained_for = ("height", "width", "num_frames", "fps", "num_inference_steps", "guidance_scale")
        without = {name: value for name, value in asdict(self).items() if name not in ("device", "offload", "license")}
        return without | {name: self.value(name) for name in trained_for}

    def _check_numbers(self, family: VideoFamily) -> None:
        for name in ("height", "width"):
            if (size := self.value(name)) < 1 or size % family.size_multiple:
                raise ConfigurationError(
                    f"Expected a {name} of {self.family} that is a multiple of {family.size_multiple} but got {size}."
                )
        counts = {"num_frames": self.value("num_frames")}
        if self.condition == "prefix":
            counts["num_prefix_frames"] = self.num_prefix_frames
        for name, count in counts.items():
            if count <= 1 or count % family.frames_step != 1:
                below = max(1, (count - 1) // family.frames_step) * family.frames_step + 1
                raise ConfigurationError(
                    f"Expected {name} of {self.family} to be {family.frames_step} n + 1 but got {count}. Take {below} or "
                    f"{below + family.frames_step}."
                )
        if self.condition == "prefix" and self.num_prefix_frames >= self.value("num_frames"):
            raise ConfigurationError(
                f"Expected a prefix shorter than the {self.value('num_frames')} frames of the video but got "
                f"{self.num_prefix_frames}."
            )


class DiffusersGenerator:
    """Makes thought videos with a model of diffusers. It is loaded when its first video, or its revision, is asked for.

    Args:
        settings ([`DiffusersSettings`]):
            Model, conditioning frames and sampling.
    """

    def __init__(self, settings: DiffusersSettings) -> None:
        self.settings = settings
        self.family = family_of(settings.family)
        self.source = self.family.source
        self.name = settings.model
        self.license = settings.license or self.family.license

    def __getstate__(self) -> dict[str, Any]:
        """State for another process: everything but the loaded model."""
        return {name: value for name, value in self.__dict__.items() if name != "pipeline"}

    @cached_property
    def revision(self) -> str:
        """Commit of the model on the Hub; of a folder, twelve digits of the hash of all its files."""
        is_snapshot = not Path(self.settings.model).is_dir()  # the folder of a commit, in the cache
        return self._folder.name if is_snapshot else folder_revision(self._folder)

    @cached_property
    def pipeline(self) -> Any:
        """The model on its device.

        Raises:
            DependencyError: If diffusers, or what this family needs besides, is not installed.
        """
        for package in self.family.needs:
            require(package)
        own = getattr(torch, self.settings.dtype)
        dtype = {"default": own, **dict.fromkeys(self.family.full_precision, torch.float32)}
        pipeline = getattr(require("diffusers"), self.family.pipeline).from_pretrained(self._folder, dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        return self._placed(pipeline)

    def generate(self, annotation: Annotation, *, prompt: str, seed: int) -> ThoughtVideo | Rejected:
        """Imagine the thought video of a question.

        Args:
            annotation ([`Annotation`]):
                The key frames come from what it sees of its clip.
            prompt (`str`):
                Text prompt of the video.
            seed (`int`):
                The same seed gives the same video on one kind of machine: noise is drawn on the CPU.

        Returns:
            [`ThoughtVideo`] with its frames in memory, or [`Rejected`] where the clip is damaged or too little of it is seen.
            After a prefix it begins with the last frame seen.
        """
        try:
            key_frames = self._key_frames(annotation)
        except VideoReadError as error:
            return Rejected.of(error)
        frames = self._imagine(key_frames, prompt, seed)
        return ThoughtVideo(
            fps=float(self.settings.value("fps")),
            source=self.source,
            generator=self.name,
            generator_revision=self.revision,
            license=self.license,
            seed=seed,
            prompt=prompt,
            frames=frames[len(key_frames.frames) - 1 :],
            seen_until_seconds=annotation.time_seconds,
        )

    @cached_property
    def _folder(self) -> Path:
        """Local folder of the model, downloaded if necessary."""
        if Path(self.settings.model).is_dir():
            return Path(self.settings.model).absolute()
        pipeline = getattr(require("diffusers"), self.family.pipeline)
        return Path(pipeline.download(self.settings.model, revision=self.settings.revision))

    def _placed(self, pipeline: Any) -> Any:
        device = self.settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if self.settings.offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        elif self.settings.offload == "group":
            pipeline.enable_group_offload(
                onload_device=torch.device(device), offload_type="block_level", num_blocks_per_group=1
            )
        else:
            pipeline.to(device)
        return pipeline

    def _key_frames(self, annotation: Annotation) -> KeyFrames:
        """Read what the model is shown, in the size of its video."""
        condition = self.settings.condition
        if condition in ("last", "prefix"):
            count = self.settings.num_prefix_frames if condition == "prefix" else 1
            return KeyFrames(self._images(read_last_seen(annotation, count, float(self.settings.value("fps")))))
        first, last = self._images(read_seen(annotation, 2))
        return KeyFrames((first,), last if condition == "first_and_last" else None)

    def _images(self, frames: np.ndarray) -> tuple[Image.Image, ...]:
        height, width = self.settings.value("height"), self.settings.value("width")
        return tuple(Image.fromarray(cropped_to(frame, height, width)) for frame in frames)

    def _imagine(self, key_frames: KeyFrames, prompt: str, seed: int) -> np.ndarray:
        settings = self.settings
        names = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale")
        arguments = {name: settings.value(name) for name in names}
        if self.family.fps_argument:
            arguments[self.family.fps_argument] = settings.value("fps")
        with torch.no_grad():
            frames = self.pipeline(
                prompt=prompt,
                negative_prompt=settings.negative_prompt,
                generator=torch.Generator("cpu").manual_seed(seed),
                output_type="np",
                **arguments,
                **self.family.arguments(key_frames, settings.value("num_frames")),
                **settings.call,
            ).frames[0]
        return (np.asarray(frames).clip(0, 1) * 255).round().astype(np.uint8)
