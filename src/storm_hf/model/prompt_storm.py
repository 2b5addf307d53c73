"""The prompt record: the form of the prompts that a model was trained on, saved with its configuration and its processor."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from .errors_storm import ConfigurationError


QUESTION_STYLES = ("words", "letters", "none")
QUESTION_FORMS = ("options", "open")
MAX_FRAMES = 32  # where the video processor names no number
_OF_FRAMES = ("num_frames", "fps", "min_frames", "max_frames")


@dataclass(frozen=True)
class PromptRecord:
    """Form of the prompts of a training run, which every later question to the model repeats.

    Args:
        num_latents (`int`):
            Number K of latent steps.
        question_style (`str`, *optional*, defaults to `"words"`):
            Form of the options in a question, `"words"`, `"letters"` or `"none"`.
        question_forms (`tuple[str, ...]`, *optional*):
            Forms of question that the model was trained on, of `"options"` and `"open"`. Empty where they are unknown.
        thinking (`bool`, *optional*, defaults to `False`):
            Value of `enable_thinking` for chat templates that have it.
        num_frames (`int`, *optional*):
            Number of frames that are read of each clip.
        fps (`float`, *optional*):
            Frames per second of video, where no number is set.
        min_frames (`int`, *optional*):
            Fewest frames of a clip that is read at `fps`.
        max_frames (`int`, *optional*):
            Most frames of a clip where no number is set.
        has_latents (`bool`, *optional*, defaults to `True`):
            Whether any run trained latents. False after training on direct answers alone (`num_latents=0`).
    """

    num_latents: int
    question_style: str = "words"
    question_forms: tuple[str, ...] = ()
    thinking: bool = False
    num_frames: int | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    has_latents: bool = True

    def __post_init__(self) -> None:
        if self.question_style not in QUESTION_STYLES:
            raise ConfigurationError(
                f"`question_style` must be {', '.join(QUESTION_STYLES[:-1])} or {QUESTION_STYLES[-1]}, got "
                f"{self.question_style!r}."
            )
        if unknown := set(self.question_forms) - set(QUESTION_FORMS):
            raise ConfigurationError(
                f"`question_forms` must be of {', '.join(QUESTION_FORMS)}, got {sorted(unknown)}."
            )

    @classmethod
    def from_dict(cls, num_latents: int, saved: dict[str, Any] | None) -> Self:
        """Make the record of a configuration. Without `saved`, as in checkpoints older than the record, the defaults hold."""
        names = {field.name for field in fields(cls)} - {"num_latents"}
        known = {name: value for name, value in (saved or {}).items() if name in names and value is not None}
        known["question_forms"] = tuple(known.get("question_forms", ()))
        return cls(num_latents, **known)

    def to_dict(self) -> dict[str, Any]:
        """Everything but K, which the configuration has as `num_latents`, without what is not set."""
        record = {name: value for name, value in asdict(self).items() if value is not None and name != "num_latents"}
        if self.has_latents:
            del record["has_latents"]
        return {**record, "question_forms": list(self.question_forms)}

    @property
    def of_template(self) -> dict[str, Any]:
        """The part that a chat template keeps; the frames are the video processor's, and the latents the model's."""
        return {name: value for name, value in self.to_dict().items() if name not in (*_OF_FRAMES, "has_latents")}

    @property
    def frames(self) -> dict[str, float]:
        """The frame sampling, as `frame_sampling` reads it off a video processor. Empty where it is unknown."""
        return {name: value for name in _OF_FRAMES if (value := getattr(self, name)) is not None}


def frame_sampling(video_processor: Any) -> dict[str, Any]:
    """Read off a video processor how many frames of a clip it samples.

    Args:
        video_processor ([`~transformers.BaseVideoProcessor`]):
            The processor. It samples if `do_sample_frames` is set.

    Returns:
        `dict`: `num_frames`; or `fps` and `max_frames`, with `min_frames` where there are any; or `max_frames` alone. What
        the processor leaves open is `MAX_FRAMES`.
    """
    is_sampling = bool(getattr(video_processor, "do_sample_frames", False))
    num_frames, fps = (getattr(video_processor, name, None) for name in ("num_frames", "fps"))
    if is_sampling and num_frames:
        return {"num_frames": num_frames}
    if not is_sampling or not fps:
        return {"max_frames": MAX_FRAMES}
    most = getattr(video_processor, "max_frames", None) or MAX_FRAMES
    fewest = getattr(video_processor, "min_frames", None)
    return {"fps": fps, **({"min_frames": min(fewest, most)} if fewest else {}), "max_frames": most}
