"""From rows to prompts: a video, a question and the assistant header, left-padded, with the latent block at the end.

Training, evaluation and `storm ask` all encode prompts here. User text can never write a control token: prompts and answers
are tokenized apart, each with its control tokens taken as text.

Axes: B batch, S sequence, N video tokens, D hidden size, L deepstack layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin
from transformers.video_utils import VideoMetadata

from storm_hf.errors import DatasetError, PromptError, StormError, first_line
from storm_hf.model.configuration_storm import StormConfig
from storm_hf.model.generation_storm import set_num_latents
from storm_hf.video import VideoClip, read_video
from storm_hf.worlds.question import QuestionStyle, format_answer, format_question


Row = Mapping[str, Any]
CACHED_PROMPT = "prompt_input_ids"


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes the prompts of a batch of rows.

    A row is a row of a storm-thoughts data set (`video`, `question`, `options`, `answer`), a conversational
    prompt-completion row as TRL takes it, with a video part in the prompt, or either one with cached video features (see
    `storm_hf.training.features`).

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            The backbone's processor with latent tokens. Its video processor says how many frames are read.
        config ([`StormConfig`]):
            Holds the latent token ids.
        num_latents (`int`):
            Number K of latent steps at the end of each prompt; `0` writes no latent block.
        question_style (`str`, *optional*, defaults to `"words"`):
            How the options are written; see `format_question`.
    """

    processor: ProcessorMixin
    config: StormConfig
    num_latents: int
    question_style: QuestionStyle = "words"

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Encode the prompts of `rows` to left-padded model inputs.

        Raises:
            DatasetError: If a row has neither a prompt nor a video and a question.
            VideoReadError: If a video cannot be read.
        """
        if CACHED_PROMPT in rows[0]:
            return set_num_latents(self._stack_cached(rows), self.num_latents, self.config)
        return self._encode([self.messages(row) for row in rows])

    def messages(self, row: Row) -> list[dict[str, Any]]:
        """The conversation up to the answer, its videos still paths or frames."""
        if "prompt" in row:
            return row["prompt"]
        if row.get("question") is None or row.get("video") is None:
            raise DatasetError(
                f"Expected a row with `prompt`, or with `video` and `question`; got the columns {sorted(row)}. See "
                "`storm_hf.target_trajectory.schema` for the form of a storm-thoughts row."
            )
        text = row["question"]
        if row.get("options") is not None and len(row["options"]):
            text = format_question(text, list(row["options"]), self.question_style)
        content = [{"type": "video", "video": row["video"]}, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}]

    def completion(self, row: Row) -> str:
        """The text that the assistant should answer."""
        if "completion" in row:
            return row["completion"][0]["content"]
        if self.question_style == "letters":
            return format_answer(row["answer"], list(row["options"]), self.question_style)
        return row["answer"]

    def _encode(self, conversations: list[list[dict[str, Any]]]) -> dict[str, torch.Tensor]:
        decoded, clips = [], []
        for messages in conversations:
            messages, found = self._decode_videos(messages)
            decoded.append(messages)
            clips.extend(found)
        template = {"num_latents": self.num_latents}
        if "enable_thinking" in self.processor.chat_template:  # templates that think aloud
            template["enable_thinking"] = False
        encoded = self.processor.apply_chat_template(
            decoded,
            tokenize=True,
            add_generation_prompt=True,
            **template,
            sanitize_control_tokens=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={
                "padding": True,
                "padding_side": "left",
                "do_sample_frames": False,
                "video_metadata": [video_metadata(clip) for clip in clips],
            },
        )
        return dict(encoded)

    def _decode_videos(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[VideoClip]]:
        clips: list[VideoClip] = []
        decoded = []
        for message in messages:
            content = message["content"]
            if not isinstance(content, str):
                content = [self._decode_part(part, clips) for part in content]
            decoded.append({**message, "content": content})
        return decoded, clips

    def _decode_part(self, part: dict[str, Any], clips: list[VideoClip]) -> dict[str, Any]:
        if part["type"] != "video":
            return part
        clips.append(load_clip(part["video"], self.processor))
        return {"type": "video", "video": clips[-1].frames}

    def _stack_cached(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Left-pad cached prompts, which end in the assistant header, and concatenate their video features."""
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
        if rows[0].get("video_deepstack") is not None:
            batch["video_deepstack"] = torch.cat([_half(row["video_deepstack"]) for row in rows], dim=1)  # (L, N, D)
        return batch


@contextmanager
def told_as_prompt_error(refusal: str) -> Iterator[None]:
    """Say in one sentence what a processor cannot take, as Qwen's cannot a picture 200 times as wide as high.

    Args:
        refusal (`str`):
            Who refuses what; the processor's reason follows.

    Raises:
        PromptError: If the processor refuses.
    """
    try:
        yield
    except StormError:
        raise
    except ValueError as error:
        raise PromptError(f"{refusal}: {first_line(error)}.") from error


def load_clip(
    video: Any, processor: ProcessorMixin, *, max_frames: int | None = None, strict: bool = True
) -> VideoClip:
    """Read a video as the saved video processor samples it.

    Args:
        video (`str`, `dict` with a `path`, or [`VideoClip`]):
            What a row holds.
        processor ([`~transformers.ProcessorMixin`]):
            Its video processor's `num_frames` or `fps` apply when it has `do_sample_frames` set.
        max_frames (`int`, *optional*):
            Most frames to read where the video processor names no number; a longer clip is sampled evenly in time. None
            means no limit.
        strict (`bool`, *optional*, defaults to `True`):
            Whether damage is an error; see `read_video`.

    Raises:
        DatasetError: If the row holds something else.
        VideoReadError: If the video cannot be read.
    """
    if isinstance(video, VideoClip):
        return video
    path = video.get("path") if isinstance(video, dict) else video
    if not path:
        raise DatasetError(
            f"Expected the path of a video file, got {type(video).__name__} without one. Write the clip to a file, or load "
            "the data set with `Video(decode=False)` from a folder that holds its files."
        )
    sampler = processor.video_processor
    if sampler.do_sample_frames and sampler.num_frames:
        return read_video(path, num_frames=sampler.num_frames, strict=strict)
    fps = sampler.fps if sampler.do_sample_frames else None
    if max_frames is None:
        return read_video(path, fps=fps, strict=strict)
    return _read_at_most(path, max_frames, fps, strict)


def _read_at_most(path: str, max_frames: int, fps: float | None, strict: bool) -> VideoClip:
    """Read every frame, or `fps` of them per second, but never hold more than `max_frames`."""
    if fps is not None and read_video(path, num_frames=2, strict=strict).duration * fps < max_frames - 1:
        return read_video(path, fps=fps, strict=strict)
    clip = read_video(path, num_frames=max_frames, strict=strict)
    num_different = len(set(clip.timestamps))
    if num_different == max_frames:
        return clip
    return read_video(path, num_frames=num_different, strict=strict)  # a short clip, without the repetitions


def video_metadata(clip: VideoClip) -> VideoMetadata:
    """Tell a processor when the frames of a clip are shown, since backbones print or embed timestamps."""
    num_frames, height, width, _ = clip.frames.shape
    return VideoMetadata(
        total_num_frames=num_frames,
        fps=clip.fps or 1.0,
        frames_indices=list(range(num_frames)),
        height=height,
        width=width,
        duration=num_frames / (clip.fps or 1.0),
    )


def _half(features: Any) -> torch.Tensor:
    """Cached features as they are stored: half the bytes to the device, where the model makes them its own type."""
    return torch.as_tensor(np.asarray(features, dtype=np.float16))


def pad_rows(rows: Sequence[torch.Tensor], padding: int, side: str) -> torch.Tensor:
    """Stack 1-D tensors of unequal length to (B, S), padded on one side."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding, padding_side=side)
