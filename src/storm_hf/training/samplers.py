"""Batches of rows of similar length, so that little of a batch is padding.

With `train_sampling_strategy: group_by_length` (or `batch_rebalance`) `Trainer` needs the length of every row. A row of ours holds
no tokens yet but a video and a question; its length is known or estimated here without decoding a frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Array2D, Array3D, Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import ProcessorMixin
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import has_length

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.conversation import own_sampling
from storm_hf.inputs.media import is_frames, load_clip, num_sampled, video_file, wanted_sampling
from storm_hf.inputs.prompts import CACHED_PROMPT, COLUMNS_OF_A_PROMPT, PromptEncoder, Row
from storm_hf.video import VideoClip
from storm_hf.video.source import open_video, pixel_aspect, shown_size


COLUMNS_OF_A_LENGTH = (*COLUMNS_OF_A_PROMPT, "completion", "answer", CACHED_PROMPT)


class LengthGroupedRows(Sampler[int]):
    """Random order in which neighbours have similar lengths, drawn from (seed, epoch) alone.

    A resumed run and every process draw the same order, which `Trainer`'s own sampler, drawing from the global generator, does
    not promise.

    Args:
        lengths (`Sequence[int]`):
            Tokens of each row.
        batch_size (`int`):
            Rows of one update over all processes; the order is sorted within groups of up to 50 of these.
        seed (`int`):
            Seed of the run's data.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw another order from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draws = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=draws))


def set_sampler_epoch(dataloader: Any, epoch: int) -> None:
    """Tell the innermost sampler the epoch, however often it was wrapped to share rows between processes or to skip some.

    Accelerate reaches through two wrappers; a run of several processes that is resumed has three.
    """
    sampler = getattr(dataloader, "batch_sampler", None)
    while sampler is not None:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)


def find_prompts(collator: Any) -> PromptEncoder | None:
    """Find the prompt encoder in a collator of either stage; None if it is not one of ours."""
    prompts = getattr(getattr(collator, "answers", collator), "prompts", None)
    return prompts if isinstance(prompts, PromptEncoder) else None


def prompt_encoder_of(collator: Any) -> PromptEncoder:
    """Find what encodes the prompts in a collator of either stage.

    Raises:
        ConfigurationError: If it is not one of ours.
    """
    if (prompts := find_prompts(collator)) is not None:
        return prompts
    raise ConfigurationError(
        f"Batches of similar length need the length of every row, and {type(collator).__name__} does not say how rows "
        "are encoded. Add a column `length` with the tokens of each row, or leave `train_sampling_strategy` at `random`."
    )


def sequence_lengths(dataset: Dataset, prompts: PromptEncoder) -> list[int]:
    """Number of tokens of every row, latent block and answer included.

    It is exact where the prompt is cached (`cache_video_features`). Elsewhere the text is counted exactly and the video is
    estimated from the header of its file, without the times that some processors write between frames.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows as a [`PromptEncoder`] takes them.
        prompts ([`PromptEncoder`]):
            Encodes them.

    Raises:
        VideoReadError: If a video cannot be opened.
    """
    columns = [name for name in COLUMNS_OF_A_LENGTH if name in dataset.column_names]
    if CACHED_PROMPT in columns:
        columns = [name for name in columns if name != "video"]
    rows = dataset.select_columns(columns).with_format(None)
    return [row_length(row, prompts, position) for position, row in enumerate(rows)]


def row_length(row: Row, prompts: PromptEncoder, position: int = 0) -> int:
    """Number of tokens of one row; see `sequence_lengths`."""
    tokenizer = prompts.processor.tokenizer
    answer = (
        len(tokenizer.encode(prompts.completion(row, position), add_special_tokens=False, split_special_tokens=True))
        + 1
    )
    if CACHED_PROMPT in row:
        block = prompts.num_latents + 2 if prompts.num_latents else 0  # with its start and its end
        return len(row[CACHED_PROMPT]) + block + answer
    messages = prompts.messages(row, position)
    text = prompts.processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **prompts.template_arguments(row, position)
    )
    videos = [part for message in messages for part in message["content"] if part["type"] == "video"]
    num_more = sum(  # the text holds one for each video
        video_tokens(part["video"], prompts.processor, own_sampling(part)) - 1 for part in videos
    )
    return len(tokenizer.encode(text, add_special_tokens=False)) + num_more + answer


def video_tokens(video: Any, processor: ProcessorMixin, sampling: Mapping[str, Any] | None = None) -> int:
    """Estimate how many tokens a video becomes, from the header of its file and the video processor's settings."""
    num_frames, height, width = clip_size(video, processor, sampling)
    sampler = processor.video_processor
    if hasattr(sampler, "get_num_of_video_patches"):
        return sampler.get_num_of_video_patches(num_frames, height, width, {}) // sampler.merge_size**2
    names = ("image_seq_length", "image_seq_len", "num_image_tokens")  # the same for every frame
    return num_frames * next((getattr(processor, name) for name in names if getattr(processor, name, None)), 1)


def clip_size(
    video: Any, processor: ProcessorMixin, sampling: Mapping[str, Any] | None = None
) -> tuple[int, int, int]:
    """Frames that will be read of a video, and their height and width in square pixels, without decoding one of a file.

    A clip that a player turns by a quarter has both the other way round: it becomes as many tokens.
    """
    if isinstance(video, VideoClip) or is_frames(video):
        num_frames, height, width, _ = load_clip(video, processor).frames.shape
        return num_frames, height, width
    with video_file(video) as path, open_video(path) as (container, stream):
        seconds = _seconds(container, stream)
        num_frames = stream.frames or round(seconds * float(stream.average_rate or 1))
        width, height = shown_size(stream.width, stream.height, pixel_aspect(stream))
        return num_sampled(num_frames, seconds, wanted_sampling(processor, sampling)), height, width


def _seconds(container: Any, stream: Any) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000  # microseconds


NEEDS_LENGTHS = ("group_by_length", "batch_rebalance")


class RowReading:
    """The part of a trainer that reads rows; stands before [`~trl.SFTTrainer`] among its bases."""

    def _get_dataloader(self: Any, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._get_dataloader(with_arrays(dataset), *args, **kwargs)  # type: ignore[misc]

    def _get_train_sampler(self: Any, train_dataset: Dataset | None = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        if args.train_sampling_strategy not in NEEDS_LENGTHS or not has_length(rows):
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        if args.length_column_name in rows.column_names:
            lengths = list(rows[args.length_column_name])
        else:
            lengths = sequence_lengths(rows, prompt_encoder_of(self.data_collator))
        if args.train_sampling_strategy == "batch_rebalance":
            return super()._get_train_sampler(Dataset.from_dict({args.length_column_name: lengths}))  # type: ignore[misc]
        batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return LengthGroupedRows(lengths, batch_size, args.seed if args.data_seed is None else args.data_seed)

    def _get_eval_sampler(self: Any, eval_dataset: Dataset) -> Any:
        if self.args.train_sampling_strategy not in NEEDS_LENGTHS:
            return super()._get_eval_sampler(eval_dataset)  # type: ignore[misc]
        is_alone = self.args.world_size <= 1 and has_length(eval_dataset)
        return SequentialSampler(eval_dataset) if is_alone else None  # as `Trainer` does for rows in random order

    def _run_epoch(self: Any, **kwargs: Any) -> None:
        set_sampler_epoch(kwargs["train_dataloader"], kwargs["epoch"])
        super()._run_epoch(**kwargs)  # type: ignore[misc]


def with_arrays(dataset: Any) -> Any:
    """Hand out columns of half-precision arrays as arrays, and all others as before.

    By default, `datasets` hands out nested lists of numbers, and the features of one long video are millions of
    numbers: over a second per row, where the array takes some milliseconds.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows. What is no such data set, or has a format that was asked for, stays as it is.
    """
    if not isinstance(dataset, Dataset) or dataset.format["type"] is not None:
        return dataset
    columns = [
        name
        for name, feature in dataset.features.items()
        if isinstance(feature, Array2D | Array3D) and feature.dtype == "float16" and name in dataset.format["columns"]
    ]
    if not columns:
        return dataset
    return dataset.with_format("numpy", columns=columns, output_all_columns=True, dtype=np.float16)
