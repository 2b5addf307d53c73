"""Reading of a trainer's rows: arrays as arrays, and rows of similar length together where that is asked for."""

from typing import Any

import numpy as np
from datasets import Array2D, Array3D, Dataset
from torch.utils.data import SequentialSampler
from transformers.trainer_utils import has_length

from storm_hf.training.lengths import LengthGroupedRows, prompt_encoder_of, sequence_lengths, set_sampler_epoch


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
