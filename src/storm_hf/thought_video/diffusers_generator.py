"""Thought videos of a diffusers model, from frames of the clip and a prompt.

Axes: T frames, H height, W width.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from storm_hf.annotations.record import Annotation
from storm_hf.errors import VideoReadError
from storm_hf.optional import require
from storm_hf.pipeline.fingerprint import folder_revision
from storm_hf.thought_video.clip_part import cropped_to, read_last_seen, read_seen
from storm_hf.thought_video.diffusers_settings import DiffusersSettings
from storm_hf.thought_video.record import Rejected, ThoughtVideo
from storm_hf.thought_video.video_families import KeyFrames, family_of


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
            MissingExtraError: If diffusers, or what this family needs besides, is not installed.
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
