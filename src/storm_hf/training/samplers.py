"""Rows of a batch: their random draws, their lengths, and an order in which neighbours are of similar length.

With `train_sampling_strategy: group_by_length` (or `batch_rebalance`) `Trainer` needs the length of every row. A row of ours holds
no tokens yet but a video and a question; its length is known or estimated here without decoding a frame.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from av import VideoStream
from av.container import InputContainer
from datasets import Array2D, Array3D, Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import ProcessorMixin, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import has_length

from storm_hf.errors import ConfigurationError
from storm_hf.inputs.conversation import own_sampling
from storm_hf.inputs.media import is_frames, load_clip, num_sampled, video_file, wanted_sampling
from storm_hf.inputs.prompts import CACHED_PROMPT, COLUMNS_OF_A_PROMPT, PromptEncoder, Row
from storm_hf.video import VideoClip
from storm_hf.video.source import open_video, pixel_aspect, shown_size


_COLUMNS_OF_A_LENGTH = (*COLUMNS_OF_A_PROMPT, "completion", "answer", CACHED_PROMPT)
_BY_LENGTH = ("group_by_length", "batch_rebalance")  # strategies of `Trainer`

_Rows = TypeVar("_Rows")


class RowDraws:
    """Random draws of a training step that depend on the row alone, not on how the batch was cut or the run resumed.

    It numbers the rows of an accumulated batch over all processes, and gives each a generator.

    Args:
        args ([`~transformers.TrainingArguments`]):
            Has the seed of the run.
        accelerator ([`~accelerate.Accelerator`]):
            Knows the processes.
    """

    def __init__(self, args: TrainingArguments, accelerator: Accelerator) -> None:
        self._args, self._accelerator = args, accelerator
        self._num_rows_numbered: Counter[tuple[int, ...]] = Counter()

    def begin(self) -> None:
        """Begin an accumulated batch: its rows are numbered from here."""
        self._num_rows_numbered.clear()

    def generators(self, num_rows: int, step: int, *purpose: int) -> list[np.random.Generator]:
        """Make a generator for each row of the next micro-batch, of its own for each `purpose`. To be called once for each."""
        numbered = self._num_rows_numbered
        first = numbered[purpose] * self._accelerator.num_processes + self._accelerator.process_index * num_rows
        numbered[purpose] += num_rows
        return [np.random.default_rng([self._args.seed, step, first + row, *purpose]) for row in range(num_rows)]


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


def set_sampler_epoch(dataloader: DataLoader, epoch: int) -> None:
    """Tell the innermost sampler the epoch, however often it was wrapped to share rows between processes or to skip some.

    Accelerate reaches through two wrappers; a run of several processes that is resumed has three.
    """
    sampler = getattr(dataloader, "batch_sampler", None)
    while sampler is not None:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)


def find_prompts(collator: object) -> PromptEncoder | None:
    """Find the prompt encoder in a collator of either stage; None if it is not one of ours."""
    prompts = getattr(getattr(collator, "answers", collator), "prompts", None)
    return prompts if isinstance(prompts, PromptEncoder) else None


def prompt_encoder_of(collator: object) -> PromptEncoder:
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
    columns = [name for name in _COLUMNS_OF_A_LENGTH if name in dataset.column_names]
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


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000  # microseconds


def needs_lengths(rows: object, args: TrainingArguments) -> bool:
    """Check that a run groups its rows by length, and that they have a number."""
    return args.train_sampling_strategy in _BY_LENGTH and has_length(rows)


def known_lengths(rows: Dataset, args: TrainingArguments, collator: object) -> list[int]:
    """Read the lengths of rows from their column, or find them; see `sequence_lengths`.

    Raises:
        ConfigurationError: If there is no column, and the collator does not know how rows are encoded.
    """
    if args.length_column_name in rows.column_names:
        return list(rows[args.length_column_name])
    return sequence_lengths(rows, prompt_encoder_of(collator))


def with_arrays(dataset: _Rows) -> _Rows:
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
