"""From rows to prompts: a video, a question and the assistant header, left-padded, with the latent block at the end.

Training, evaluation and `storm ask` all encode prompts here, in the form that the model was trained on. User text can never
write a control token: prompts and answers are tokenized apart, each with its control tokens taken as text.

Axes: B batch, S sequence, N video tokens, D hidden size, L deepstack layers.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from transformers import ProcessorMixin

from storm_hf.errors import DatasetError, LatentError, PromptError, StormError, first_line
from storm_hf.inputs.conversation import (
    Message,
    Row,
    is_filled,
    naming_row,
    own_sampling,
    read_answer,
    read_messages,
    read_options,
    row_name,
    template_arguments,
)
from storm_hf.inputs.media import load_clip, load_picture, video_metadata
from storm_hf.inputs.placeholders import asks_for_clip_text, typed_placeholders_named, with_clip_token_mask
from storm_hf.inputs.wording import QuestionStyle
from storm_hf.model.configuration_storm import StormConfig
from storm_hf.model.generation_storm import set_num_latents
from storm_hf.model.latent_block_storm import PER_TOKEN_INPUTS
from storm_hf.model.processing_storm import find_misfit, reads_variable, thinking_switches
from storm_hf.video import VideoClip


CACHED_PROMPT = "prompt_input_ids"
CACHED_STYLE = "prompt_question_style"
COLUMNS_OF_A_PROMPT = (
    *("prompt", "messages", "video", "videos", "image", "images", "question", "options"),
    *("tools", "chat_template_kwargs", "id"),
)
_PIXEL_MASK = "pixel_attention_mask"
_PER_TOKEN = dict.fromkeys(("attention_mask", "clip_token_mask", *PER_TOKEN_INPUTS), 0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes the prompts of a batch of rows.

    A row has any form of [`storm_hf.inputs.conversation`], or cached video features (see `storm_hf.inputs.features`).

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The backbone's processor with latent tokens. Its video processor says how many frames are read.
        config ([`StormConfig`]):
            Holds the latent token ids, and the record of how the model was asked in training.
        num_latents (`int`):
            Number K of latent steps at the end of each prompt; `0` writes no latent block.
        question_style (`str`, *optional*):
            Form of the options in a question; see `format_question`. By default the one that the model was trained on.

    Raises:
        LatentError: If `num_latents` is no such number.
    """

    processor: ProcessorMixin
    config: StormConfig
    num_latents: int
    question_style: QuestionStyle | None = None  # made the model's own

    def __post_init__(self) -> None:
        if not isinstance(self.num_latents, Integral) or self.num_latents < 0:
            raise LatentError(f"`num_latents` must be a whole number of 0 or more, got {self.num_latents!r}.")
        if self.question_style is None:
            record = getattr(self.config, "prompt_record", None)  # a plain checkpoint has none
            object.__setattr__(self, "question_style", "words" if record is None else record.question_style)

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Encode the prompts of `rows` to left-padded model inputs.

        Raises:
            DatasetError: If a row has another form; the message names the row.
            PromptError: If the processor does not write the latent block that the model reads.
            VideoReadError: If a video cannot be read.
        """
        self._warn_of_other_forms(rows)
        if any(row.get(CACHED_PROMPT) is not None for row in rows):
            return set_num_latents(self._stack_cached(rows), self.num_latents, self.config)
        batch = self._encode(rows)
        self._check_block(batch["input_ids"])
        return batch

    @property
    def style(self) -> QuestionStyle:
        """The form of the options, which is known once the encoder is made."""
        return cast(QuestionStyle, self.question_style)

    def messages(self, row: Row, position: int = 0) -> list[Message]:
        """The conversation up to the answer; its videos and pictures are not read yet."""
        with naming_row(row, position):
            return read_messages(row, self.style)

    def count(self, row: Row, medium: str) -> int:
        """Number of videos, or of images, in a row's prompt."""
        return sum(part["type"] == medium for message in self.messages(row) for part in message["content"])

    def completion(self, row: Row, position: int = 0) -> str:
        """The text that the assistant should answer."""
        with naming_row(row, position):
            return read_answer(row, self.style)

    def template_arguments(self, row: Row, position: int = 0) -> dict[str, Any]:
        """Everything that the row's prompt is rendered with, besides its messages: what the chat template reads."""
        record, template = getattr(self.config, "prompt_record", None), str(self.processor.chat_template)
        switches = dict.fromkeys(thinking_switches(template), bool(record and record.thinking))
        with naming_row(row, position):
            own = template_arguments(row)
            if other := [name for name in switches if own.get(name, switches[name]) != switches[name]]:
                raise DatasetError(
                    f"`chat_template_kwargs` sets {other[0]} to {own[other[0]]}, but this model is asked with {switches[other[0]]}. "
                    "Leave it out."
                )
        arguments = {**switches, **own, "num_latents": self.num_latents}
        return {name: value for name, value in arguments.items() if name == "tools" or reads_variable(template, name)}

    def _encode(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        arguments = [self.template_arguments(row, position) for position, row in enumerate(rows)]
        decoded, clips = [], []
        for position, row in enumerate(rows):
            found: list[VideoClip] = []
            messages = self.messages(row, position)
            with naming_row(row, position):
                decoded.append([self._decode(message, found) for message in messages])
            clips.append(found)
        lengths = {
            len(clip.frames) for found in clips for clip in found
        }  # SmolVLM writes the longest of a batch for all
        if len(lengths) <= 1 and all(each == arguments[0] for each in arguments):
            return self._render(decoded, [clip for found in clips for clip in found], arguments[0])
        parts = [self._render([one], found, own) for one, found, own in zip(decoded, clips, arguments, strict=True)]
        return join_prompts(parts, self.processor.tokenizer.pad_token_id)

    @property
    def _is_storm(self) -> bool:
        return self.config.model_type == StormConfig.model_type

    def _render(
        self, conversations: list[list[Message]], clips: Sequence[VideoClip], arguments: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        with typed_placeholders_named(conversations, self.processor):
            encoded = self._apply_template(conversations, clips, arguments)
        return with_clip_token_mask(encoded, self.processor)

    def _apply_template(
        self, conversations: list[list[Message]], clips: Sequence[VideoClip], arguments: dict[str, Any]
    ) -> Any:
        return self.processor.apply_chat_template(
            conversations,
            chat_template=self.processor.chat_template,  # named, since SmolVLM's puts another one in for videos
            tokenize=True,
            add_generation_prompt=True,
            **arguments,
            sanitize_control_tokens=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={
                "padding": True,
                "padding_side": "left",
                "do_sample_frames": False,
                "video_metadata": [video_metadata(clip) for clip in clips],
                **(asks_for_clip_text(self.processor) if self._is_storm else {}),  # a plain model takes no mask of it
            },
        )

    def _decode(self, message: Message, clips: list[VideoClip]) -> Message:
        return {**message, "content": [self._decode_part(part, clips) for part in message["content"]]}

    def _decode_part(self, part: dict[str, Any], clips: list[VideoClip]) -> dict[str, Any]:
        if part["type"] == "text":
            return part
        if part["type"] == "image":
            return {"type": "image", "image": load_picture(part["image"])}
        clips.append(load_clip(part["video"], self.processor, sampling=own_sampling(part)))
        return {"type": "video", "video": clips[-1].frames}

    def _check_block(self, input_ids: torch.Tensor) -> None:
        """Make sure that each prompt ends in the latent block that is wanted, in the model's own ids."""
        ids: tuple[Any, ...] = getattr(self.config, "latent_block_ids", (None,))
        if None in ids:  # a plain checkpoint, or one whose placeholders are ordinary tokens
            return
        start_id, latent_id, end_id = ids
        block = input_ids.new_tensor([start_id, *[latent_id] * self.num_latents, end_id] if self.num_latents else [])
        num_found = torch.isin(input_ids, input_ids.new_tensor(ids)).sum(dim=1)  # (B,)
        end = input_ids[:, input_ids.shape[1] - len(block) :]
        if bool((num_found == len(block)).all()) and end.shape[1] == len(block) and bool((end == block).all()):
            return
        raise PromptError(
            find_misfit(self.processor, self.config)
            or f"Expected prompts that end in a latent block of {self.num_latents} placeholders, got "
            f"{input_ids.eq(latent_id).sum(dim=1).tolist()}. Call `add_latent_tokens(processor, {self.num_latents})`."
        )

    def _warn_of_other_forms(self, rows: Sequence[Row]) -> None:
        """Log once that a model is asked in a form that it was not trained on."""
        record = getattr(self.config, "prompt_record", None)
        if self.num_latents and record is not None and not record.has_latents:
            logger.warning_once(  # type: ignore[attr-defined]
                "This model was trained on direct answers alone: the latents before its answer were never trained. Ask it with "
                "`num_latents=0`."
            )
        for position, row in enumerate(rows):
            if not is_filled(row, "question"):
                continue
            with naming_row(row, position):
                has_options = self.question_style != "none" and len(read_options(row)) > 0
            if caveat := form_caveat(self.config, has_options):
                logger.warning_once(caveat)  # type: ignore[attr-defined]

    def _stack_cached(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Left-pad cached prompts, which end in the assistant header, and concatenate their video features."""
        for position, row in enumerate(rows):
            with naming_row(row, position):
                self._check_cached(row)
        prompts = [torch.as_tensor(row[CACHED_PROMPT], dtype=torch.long) for row in rows]
        types = [torch.as_tensor(row["prompt_mm_token_type_ids"], dtype=torch.long) for row in rows]
        pad = self.processor.tokenizer.pad_token_id
        batch = {
            "input_ids": pad_rows(prompts, pad, side="left"),
            "attention_mask": pad_rows([torch.ones_like(prompt) for prompt in prompts], 0, side="left"),
            "mm_token_type_ids": pad_rows(types, 0, side="left"),
            "video_features": torch.cat([_half(row["video_features"]) for row in rows]),
            "video_grid_thw": torch.cat([torch.as_tensor(np.asarray(row["video_grid_thw"])) for row in rows]).long(),
        }
        if rows[0].get("second_per_grid_ts") is not None:
            seconds = [np.atleast_1d(np.asarray(row["second_per_grid_ts"])) for row in rows]
            batch["second_per_grid_ts"] = torch.as_tensor(np.concatenate(seconds)).float()
        if rows[0].get("prompt_clip_token_mask") is not None:
            masks = [torch.as_tensor(row["prompt_clip_token_mask"], dtype=torch.bool) for row in rows]
            batch["clip_token_mask"] = pad_rows(masks, 0, side="left")
        if rows[0].get("video_deepstack") is not None:
            batch["video_deepstack"] = torch.cat([_half(row["video_deepstack"]) for row in rows], dim=1)  # (L, N, D)
        return batch

    def _check_cached(self, row: Row) -> None:
        if row.get(CACHED_PROMPT) is None:
            raise DatasetError(
                "Expected a cached prompt in every row of a batch, got one without. Cache all rows, or none."
            )
        style = row.get(CACHED_STYLE)
        if style is not None and style != self.question_style:
            raise DatasetError(
                f"The cached prompt was written with question_style {style!r}, but {self.question_style!r} is asked for. Call "
                f"`cache_video_features(..., question_style={self.question_style!r})` again."
            )


def encode_rows(prompts: PromptEncoder, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Encode prompts, and name the row that a processor refuses, as Qwen3-VL's does a clip of one frame.

    Args:
        prompts ([`PromptEncoder`]):
            Encodes them.
        rows (`Sequence[Mapping]`):
            The rows.

    Raises:
        PromptError: If the processor refuses a row.
    """
    try:
        return prompts(rows)
    except StormError:
        raise
    except ValueError:
        for position, row in enumerate(rows):
            with as_prompt_error(f"{row_name(row, position)}: the processor cannot take it"):
                prompts([row])
        raise


def form_caveat(config: object, has_options: bool) -> str | None:
    """Tell in one sentence that a model was not trained on the form of a question; None where it was, or where its forms are unknown.

    Args:
        config ([`StormConfig`]):
            Configuration of the model.
        has_options (`bool`):
            Whether the question names its options.
    """
    record = getattr(config, "prompt_record", None)
    forms = () if record is None else record.question_forms
    if not forms or ("options" if has_options else "open") in forms:
        return None
    trained, asked = ("without", "with") if has_options else ("with", "without")
    return f"This model was trained on questions {trained} options alone: its answer to one {asked} options may be a guess."


def join_prompts(parts: Sequence[dict[str, torch.Tensor]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Left-pad prompts that were encoded one by one, and concatenate what they show.

    Args:
        parts (`Sequence[dict[str, torch.Tensor]]`):
            Model inputs of one prompt each.
        pad_token_id (`int`):
            Padding at the beginning of shorter prompts.

    Raises:
        DatasetError: If their clips do not go into one batch.
    """
    padding = {"input_ids": pad_token_id, **_PER_TOKEN}
    names = list(dict.fromkeys(name for part in parts for name in part))
    joined = {}
    for name in names:
        tensors = [part[name] for part in parts if name in part]
        if name in padding:
            joined[name] = pad_rows([tensor[0] for tensor in tensors], padding[name], side="left")
        elif name == "video_deepstack":
            joined[name] = torch.cat(tensors, dim=1)  # (L, N, D)
        elif len({tensor.shape[1:] for tensor in tensors}) == 1:
            joined[name] = torch.cat(tensors)
        elif _PIXEL_MASK in names:  # a model that reads the mask drops what was added
            joined[name] = torch.cat(_padded_to_largest(tensors))
        else:
            raise DatasetError(
                f"Clips of one batch have different numbers of frames or different sizes, which this processor does not put into "
                f"one batch ({name}). Set `num_frames`, or train with one row a batch."
            )
    return joined


def _padded_to_largest(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Pad with zeros after the end of every dimension but the first, as processors pad frames."""
    sizes = [max(lengths) for lengths in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [size - length for size, length in zip(sizes, tensor.shape[1:], strict=True)]
        padded.append(torch.nn.functional.pad(tensor, [side for after in missing[::-1] for side in (0, after)]))
    return padded


@contextmanager
def as_prompt_error(refusal: str) -> Iterator[None]:
    """Say in one sentence what a processor cannot take, as Qwen's cannot a picture 200 times as wide as high.

    Args:
        refusal (`str`):
            Subject of the message; the processor's reason follows.

    Raises:
        PromptError: If the processor refuses.
    """
    try:
        yield
    except StormError:
        raise
    except ValueError as error:
        raise PromptError(f"{refusal}: {first_line(error)}.") from error


def _half(features: object) -> torch.Tensor:
    """Cached features as they are stored: half the bytes to the device, where the model makes them its own type."""
    return torch.as_tensor(np.asarray(features, dtype=np.float16))


def pad_rows(rows: Sequence[torch.Tensor], padding: int, side: str) -> torch.Tensor:
    """Stack 1-D tensors of unequal length to (B, S), padded on one side."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding, padding_side=side)
