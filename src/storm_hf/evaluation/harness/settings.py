"""Model settings of an lmms-eval run, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from storm_hf.errors import ConfigurationError
from storm_hf.interventions.kind import OF_ONE_QUESTION, InterventionKind, read_kind
from storm_hf.settings import NonNegativeInt, PositiveFloat, PositiveInt, check_names, check_values
from storm_hf.video.library_backends import check_backend_name, other_backend


PromptStyle = Literal["direct", "cot"]

# Changing one of these gives the same answers.
WITHOUT_EFFECT = frozenset({"batch_size", "answers", "device", "device_map"})
# Answers that were logged before these settings existed do not name them.
_IF_GIVEN = ("revision", "video_backend")
# lmms-eval hands these to every model.
_OF_LMMS_EVAL = frozenset({"max_batch_size"})


@dataclass(frozen=True)
class ChatSettings:
    """The arguments of `--model_args`, with the batch size and the device of lmms-eval's command line.

    Args:
        pretrained (`str`):
            A STORM, a plain checkpoint, or an adapter's folder; a folder or a name on the Hub.
        revision (`str`, *optional*):
            Branch, tag or commit, of a name on the Hub. Answers belong to the commit.
        num_latents (`int`, *optional*):
            Number K of latent steps, by default the model's. `0` answers without thinking, as a plain checkpoint does.
        latents (`str`, *optional*, defaults to `"own"`):
            Intervention on the latents: `own` is none, or `zero`, `noise_per_question`, `mean_over_steps`, `no_latents`
            or `latents_only`; see [`~storm_hf.interventions.kind.InterventionKind`].
        prompt (`str`, *optional*, defaults to `"direct"`):
            `cot` asks for reasoning between `<think>` and `</think>` before the answer.
        max_frames (`int`, *optional*, defaults to `32`):
            Most frames of a video.
        fps (`float`, *optional*):
            Frames per second of video, up to `max_frames`. Without it frames are spread evenly over the video.
        min_pixels (`int`, *optional*):
            Smallest size, in pixels, that the processor gives a picture or a video (as its `size["shortest_edge"]`).
        max_pixels (`int`, *optional*):
            Largest size, likewise (`size["longest_edge"]`).
        max_new_tokens (`int`, *optional*):
            Longest answer, reasoning included. By default the task's, and 1024 with `prompt="cot"`.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Type of the weights; `auto` is that of the checkpoint.
        device (`str`, *optional*):
            Device of the model, by default the accelerator of the machine.
        device_map (`str`, *optional*):
            Spreads the model over devices, as in `from_pretrained`.
        attn_implementation (`str`, *optional*):
            As in `from_pretrained`.
        batch_size (`int`, *optional*, defaults to `1`):
            Questions that are answered together.
        video_backend (`str`, *optional*):
            Decoder of the clips: `pyav`, `decord` or `torchcodec`. By default that of `STORM_VIDEO_BACKEND`, else PyAV.
        answers (`str`, *optional*):
            Folder of an answer log. Questions whose answers are in it are not asked again.
    """

    pretrained: str
    revision: str | None = None
    num_latents: NonNegativeInt | None = None
    latents: InterventionKind = InterventionKind.own
    prompt: PromptStyle = "direct"
    max_frames: PositiveInt = 32
    fps: PositiveFloat | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_new_tokens: PositiveInt | None = None
    dtype: str = "auto"
    device: str | None = None
    device_map: str | None = None
    attn_implementation: str | None = None
    batch_size: PositiveInt = 1
    video_backend: str | None = None
    answers: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "latents", read_kind(self.latents, (InterventionKind.own, *OF_ONE_QUESTION)))
        check_values(self)
        if self.video_backend is not None:
            check_backend_name(self.video_backend)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "ChatSettings":
        """Take what lmms-eval read from its command line.

        Raises:
            ConfigurationError: If there is no checkpoint, an argument is unknown, or a value is out of range.
        """
        given = {name: value for name, value in arguments.items() if name not in _OF_LMMS_EVAL and value is not None}
        check_names(given, [field.name for field in fields(cls)], "the arguments of the model `storm`")
        if not given.get("pretrained"):
            raise ConfigurationError("Expected `pretrained=…` in the arguments of the model: a folder or a Hub name.")
        for name in ("pretrained", "revision"):  # lmms-eval reads a folder called 7 as a number
            given |= {name: str(given[name])} if name in given else {}
        if str(size := given.get("batch_size")).isdecimal():
            given["batch_size"] = int(str(size))
        return cls(**given)

    @property
    def wanted_latents(self) -> int | None:
        """Number of latent steps to ask for; None means as many as the model has learned."""
        return 0 if self.latents == InterventionKind.no_latents else self.num_latents

    @property
    def identity(self) -> dict[str, Any]:
        """The settings on which an answer depends."""
        known = {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
        known |= {"video_backend": None, **other_backend(self.video_backend or "auto")}
        return {name: value for name, value in known.items() if name not in _IF_GIVEN or value is not None}
