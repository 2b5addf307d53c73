"""Settings of a video model of diffusers. Omitted ones are those its family was trained with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from storm_hf.errors import ConfigurationError
from storm_hf.thought_video.video_families import VideoFamily, family_of


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
