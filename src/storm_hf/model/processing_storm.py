"""Latent tokens, the latent block and the prompt record, added to a backbone's own processor.

The processor stays the backbone's class, so that it loads without remote code. Its tokenizer learns three special tokens, and
its chat template, kept as it is, gets two more parts: before it the default of its switch for thinking aloud, after it the
latent block that follows the assistant header. The record stands in a comment of the template.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import transformers  # its names load when they are used: processors bring torchvision, which a model does not need

from .errors_storm import BackboneError, ConfigurationError


_QUESTION_STYLES = ("words", "letters", "none")
_QUESTION_FORMS = ("options", "open")
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
        if self.question_style not in _QUESTION_STYLES:
            raise ConfigurationError(
                f"`question_style` must be {', '.join(_QUESTION_STYLES[:-1])} or {_QUESTION_STYLES[-1]}, got "
                f"{self.question_style!r}."
            )
        if unknown := set(self.question_forms) - set(_QUESTION_FORMS):
            raise ConfigurationError(
                f"`question_forms` must be of {', '.join(_QUESTION_FORMS)}, got {sorted(unknown)}."
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


def frame_sampling(video_processor: transformers.BaseVideoProcessor) -> dict[str, Any]:
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


LATENT_TOKENS = ("<|latent_start|>", "<|latent|>", "<|latent_end|>")
_THINKING_SWITCHES = ("enable_thinking", "thinking")  # variables of chat templates that think aloud
_MARK = "{#- the latent block of STORM -#}"
_END_OF_PREFIX = "{#- the template of the backbone +#}"  # the plus keeps what follows as it is
_SWITCH = "{%- set NAME = NAME if NAME is defined and NAME is not none else VALUE -%}"
_RECORD = re.compile(r"\{#- storm_prompt (\{.*?\}) -#\}")
_QUESTION = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
_LATENT_BLOCK = """{%- if add_generation_prompt -%}
    {%- set num_latents = num_latents if num_latents is defined and num_latents is not none else NUM_LATENTS -%}
    {%- if num_latents > 0 -%}
        {{- '<|latent_start|>' -}}{%- for _ in range(num_latents) -%}{{- '<|latent|>' -}}{%- endfor -%}{{- '<|latent_end|>' -}}
    {%- endif -%}
{%- endif -%}"""


def add_latent_tokens(
    processor: transformers.ProcessorMixin, num_latents: int = 8, record: PromptRecord | None = None
) -> transformers.ProcessorMixin:
    """Teach a backbone's processor the three latent tokens and the latent block, in place.

    A stock `apply_chat_template(..., add_generation_prompt=True)` then writes the prompt that training uses.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The backbone's processor. Calling this twice only changes the default K and, if one is given, the record.
        num_latents (`int`, *optional*, defaults to `8`):
            Number of placeholders that the chat template writes; `apply_chat_template(..., num_latents=k)` overrides it
            for one call, and `0` writes no block at all.
        record ([`PromptRecord`], *optional*):
            Form of the prompts that the model was trained on. By default the one that the template holds.

    Returns:
        [`~transformers.ProcessorMixin`]: The same processor, padding on the left.

    Raises:
        BackboneError: If the processor reads no videos or has no chat template.
    """
    if getattr(processor, "video_processor", None) is None:
        raise BackboneError(
            f"STORM thinks about videos, but a {type(processor).__name__} has no video processor. Use a video-language "
            "backbone such as Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM or InternVL."
        )
    if not isinstance(processor.chat_template, str):
        raise BackboneError(
            f"Expected one chat template on the {type(processor).__name__}, got {type(processor.chat_template).__name__}. "
            "Set `processor.chat_template` to the template of the instruction-tuned checkpoint."
        )
    tokens = [transformers.AddedToken(token, special=True, normalized=False) for token in LATENT_TOKENS]
    processor.tokenizer.add_tokens(tokens, special_tokens=True)
    processor.tokenizer.padding_side = "left"
    processor.tokenizer.init_kwargs["padding_side"] = "left"  # what `save_pretrained` writes
    saved = _saved_record(processor.chat_template) if record is None else record.of_template
    stock = processor.chat_template.partition(_MARK)[0].rpartition(_END_OF_PREFIX)[2]
    note = "" if saved is None else f"{{#- storm_prompt {json.dumps(saved)} -#}}"
    block = _LATENT_BLOCK.replace("NUM_LATENTS", str(num_latents))
    processor.chat_template = _prefix(stock, bool((saved or {}).get("thinking"))) + stock + _MARK + note + block
    return processor


def thinking_switches(chat_template: str) -> list[str]:
    """Names of the variables that make a chat template think aloud."""
    return [name for name in _THINKING_SWITCHES if reads_variable(chat_template, name)]


def reads_variable(chat_template: str, name: str) -> bool:
    """Check that a chat template reads a variable. What it does not read, transformers hands to the processor."""
    return re.search(rf"(?<![\w.'\"]){re.escape(name)}\b", chat_template) is not None


def _prefix(stock: str, thinking: bool) -> str:
    value = str(thinking).lower()
    sets = [_SWITCH.replace("NAME", name).replace("VALUE", value) for name in thinking_switches(stock)]
    return "".join([*sets, _END_OF_PREFIX]) if sets else ""


def _saved_record(chat_template: str) -> dict[str, Any] | None:
    found = _RECORD.search(chat_template)
    return None if found is None else json.loads(found[1])


def written_latents(processor: transformers.ProcessorMixin, **template: object) -> int:
    """Number of latent placeholders that the chat template writes after the assistant header."""
    text = processor.apply_chat_template(_QUESTION, tokenize=False, add_generation_prompt=True, **template)
    start, latent, end = LATENT_TOKENS
    num_latents = text.count(latent)
    return num_latents if text.endswith(start + latent * num_latents + end) else 0


def find_misfit(processor: transformers.ProcessorMixin, config: transformers.PreTrainedConfig) -> str | None:
    """Tell why a processor cannot write the prompts of a model, in one sentence; None if it can.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The processor.
        config ([`StormConfig`]):
            Configuration of the model.
    """
    cure = f"Call `add_latent_tokens(processor, {config.num_latents})`, or load the processor that was saved with the model."
    known = processor.tokenizer.get_vocab()
    ids = tuple(known.get(token) for token in LATENT_TOKENS)
    wanted = config.latent_block_ids
    if any(expected not in (None, got) for got, expected in zip(ids, wanted, strict=True)):
        return f"Expected a processor whose latent tokens have the ids {wanted}, as in the model, got {ids}. {cure}"
    if config.num_latents and written_latents(processor, num_latents=1) != 1:
        return (
            f"The processor's chat template writes no latent block, but the model thinks in {config.num_latents} latents: it is "
            f"the backbone's template, or it was replaced. {cure}"
        )
    return None


def find_differences(processor: transformers.ProcessorMixin, config: transformers.PreTrainedConfig) -> list[str]:
    """Tell where a processor would ask in another way than the model was trained, in one sentence each.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            A processor with latent tokens.
        config ([`StormConfig`]):
            Configuration of the model, which decides.
    """
    record = config.prompt_record
    found = []
    if (written := written_latents(processor)) != record.num_latents:
        found.append(
            f"The processor's chat template writes {written} latents, but the model has num_latents={record.num_latents}. "
            f"Call `add_latent_tokens(processor, {record.num_latents})` and save it."
        )
    saved = _saved_record(processor.chat_template)
    style = record.question_style if saved is None else saved.get("question_style")
    if style != record.question_style:
        found.append(
            f"The processor's question_style is {style!r}, but the model was trained with {record.question_style!r}, which is "
            "used."
        )
    sampled = frame_sampling(processor.video_processor)
    if record.frames and sampled != record.frames:
        found.append(
            f"The processor reads frames by {sampled}, but the model was trained with {record.frames}. Set these on "
            "`processor.video_processor`."
        )
    return found


def write_record(
    record: PromptRecord, config: transformers.PreTrainedConfig, processor: transformers.ProcessorMixin
) -> None:
    """Write the form of the prompts of a training run into a model's configuration and its processor, in place."""
    config.num_latents = record.num_latents
    config.storm_prompt = record.to_dict()
    add_latent_tokens(processor, record.num_latents, record)


def storm_processor(name_or_path: str, num_latents: int = 8, **kwargs: object) -> transformers.ProcessorMixin:
    """Load a backbone's processor and add the latent tokens.

    Args:
        name_or_path (`str`):
            The backbone's checkpoint, on the Hub or in a folder.
        num_latents (`int`, *optional*, defaults to `8`):
            Number K of latent steps that the chat template writes.
        kwargs:
            Passed to `AutoProcessor.from_pretrained`.

    Raises:
        BackboneError: If the processor reads no videos or has no chat template.
    """
    return add_latent_tokens(transformers.AutoProcessor.from_pretrained(name_or_path, **kwargs), num_latents)
