"""Term of the loss that keeps a pretrained model's language: plain rows beside the rows of a stage.

Axes: N supervised tokens, k recorded tokens of the vocabulary.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from storm_hf.atomic import written_atomically
from storm_hf.errors import ConfigurationError
from storm_hf.inputs.collator import IGNORED_LABEL
from storm_hf.optional import require
from storm_hf.training.config import StormTrainingConfig
from storm_hf.training.language import (
    COLUMNS,
    encode_language,
    is_recorded,
    load_language,
    record_language,
)
from storm_hf.training.language_loss import language_kl, stack_language, supervised_logits


RECORD_FILE = "language.parquet"
_LANGUAGE = 2  # what draws are for
_SHARDED = (DistributedType.DEEPSPEED, DistributedType.FSDP)

logger = logging.getLogger(__name__)


def choose_language(rows: Dataset | str | os.PathLike[str] | None, args: StormTrainingConfig) -> Dataset | None:
    """Take the plain rows of a run, and check that they and the settings go together.

    Args:
        rows ([`~datasets.Dataset`], `str` or `os.PathLike`, *optional*):
            The rows, or the name of a data set of them. By default `args.language_dataset_name`.
        args ([`StormTrainingConfig`]):
            Configuration of the run.

    Raises:
        ConfigurationError: If there are rows without a weight, a weight without rows, or rows of another kind.
        DatasetError: If there is no such data set.
    """
    rows = args.language_dataset_name if rows is None else rows
    is_weighted = args.keep_language > 0 or args.language_weight > 0
    if rows is None and is_weighted:
        raise ConfigurationError(
            f"`keep_language: {args.keep_language}` and `language_weight: {args.language_weight}` are weights of plain rows, "
            "but there are none. Give `language_dataset`, or set both to 0."
        )
    if rows is None:
        return None
    if not is_weighted:
        raise ConfigurationError(
            "`language_dataset` is given, but `keep_language` and `language_weight` are both 0, so that it would not be used. "
            "Set one of them, such as `keep_language: 1.0`, or leave the rows out."
        )
    rows = load_language(os.fspath(rows)) if isinstance(rows, str | os.PathLike) else rows
    if not isinstance(rows, Dataset):
        raise ConfigurationError(
            f"Expected `language_dataset` to be a `datasets.Dataset` or the name of one, got {type(rows).__name__}. Make one with "
            "`Dataset.from_list(rows)`."
        )
    return rows


class LanguageRegularizer:
    """Draws plain rows for each micro-batch, and computes their weighted losses.

    Rows come in an endless shuffled order that depends on the seed alone. Each step takes the next of them, whether the run was
    resumed or not, and however a batch is cut into micro-batches and processes.

    Args:
        rows ([`~datasets.Dataset`]):
            Plain rows with `input_ids` and `labels`.
        args ([`StormTrainingConfig`]):
            Has the weights, the batch size and the seed.
        accelerator ([`~accelerate.Accelerator`]):
            Knows the processes.
    """

    def __init__(self, rows: Dataset, args: StormTrainingConfig, accelerator: Accelerator) -> None:
        self._args, self._accelerator = args, accelerator
        self._use(rows)
        labels = self._tensors["labels"]
        self._num_supervised = np.array([int((row != IGNORED_LABEL).sum()) for row in labels])
        self._orders: dict[int, np.ndarray] = {}
        self.begin(num_batches=1, step=0)

    def _use(self, rows: Dataset) -> None:
        self.rows = rows
        self._tensors = rows.with_format("torch", columns=[name for name in COLUMNS if name in rows.column_names])

    @classmethod
    def of_run(
        cls,
        rows: Dataset | None,
        processor: ProcessorMixin,
        config: PreTrainedConfig,
        args: StormTrainingConfig,
        accelerator: Accelerator,
    ) -> "LanguageRegularizer | None":
        """Encode the plain rows of a run; None if there are none."""
        return None if rows is None else cls(encode_language(processor, config, rows), args, accelerator)

    # --- Record ------------------------------------------------------------------------------------------------------

    def record(self, model: PreTrainedModel | PeftModel, processor: ProcessorMixin, is_resumed: bool) -> None:
        """Record the model as it is, unless the rows are recorded, or the run is resumed and has its record.

        Args:
            model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
                The model before its first step, also where a checkpoint is resumed from next.
            processor ([`~transformers.ProcessorMixin`]):
                Its processor.
            is_resumed (`bool`):
                Whether the run goes on from a checkpoint.

        Raises:
            ConfigurationError: If DeepSpeed or FSDP trains, which hold the model otherwise than it is recorded.
        """
        if self._args.keep_language == 0 or is_recorded(self.rows):
            return
        path = Path(self._args.output_dir, RECORD_FILE)
        with self._args.main_process_first(desc="the record of plain rows"):
            is_writer = self._args.local_process_index == 0
            found = _read_record(path, self.rows) if is_resumed or not is_writer else None
            self._use(self._write_record(path, model, processor) if found is None else found)

    def _write_record(self, path: Path, model: PreTrainedModel | PeftModel, processor: ProcessorMixin) -> Dataset:
        if self._accelerator.distributed_type in _SHARDED:
            raise ConfigurationError(
                "`keep_language` needs rows that are recorded before the run where DeepSpeed or FSDP trains. Record them once with "
                "`record_language(model, processor, rows).to_parquet('language.parquet')`, and give that file."
            )
        with self._accelerator.autocast():
            rows = record_language(model, processor, self.rows, batch_size=self._args.language_batch_size)
        with written_atomically(path) as unfinished:
            require("pyarrow.parquet").write_table(rows.data.table, unfinished)
        return rows

    # --- Rows of a step ----------------------------------------------------------------------------------------------

    def begin(self, num_batches: int, step: int) -> None:
        """Begin an accumulated batch of so many micro-batches on each process."""
        args, num_ranks = self._args, self._accelerator.num_processes
        num_of_batch = args.language_batch_size * num_ranks
        first = step * args.gradient_accumulation_steps * num_of_batch
        self._positions = self._shuffled(first, num_batches * num_of_batch)
        self._num_tokens = int(self._num_supervised[self._positions].sum())
        self._next = self._accelerator.process_index * args.language_batch_size

    def _shuffled(self, first: int, count: int) -> np.ndarray:
        """Take some positions of the endless order: all rows once, then all again in another order."""
        places = np.arange(first, first + count)
        rounds = places // len(self.rows)
        self._orders = {number: self._order(number) for number in np.unique(rounds).tolist()}
        pairs = zip(rounds.tolist(), (places % len(self.rows)).tolist(), strict=True)
        return np.array([self._orders[number][place] for number, place in pairs])

    def _order(self, number: int) -> np.ndarray:
        if number in self._orders:
            return self._orders[number]
        return np.random.default_rng([self._args.seed, number, _LANGUAGE]).permutation(len(self.rows))

    # --- Losses ------------------------------------------------------------------------------------------------------

    def __call__(
        self, model: PreTrainedModel | PeftModel, is_accumulated: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the term of one micro-batch, and the mean losses of its tokens.

        Args:
            model ([`StormForConditionalGeneration`] or [`~peft.PeftModel`]):
                The model now.
            is_accumulated (`bool`):
                Whether to divide by the tokens of the whole accumulated batch over all processes, as the losses of the stages
                are. Otherwise by those of the micro-batch.
        """
        batch = self._take(self._accelerator.device)
        with self._accelerator.autocast():
            logits, labels = supervised_logits(model, batch)
        with torch.set_grad_enabled(self._args.language_weight > 0):
            losses = {"language_loss": torch.nn.functional.cross_entropy(logits, labels, reduction="none")}
        total = self._args.language_weight * losses["language_loss"].sum()
        if self._args.keep_language > 0:
            losses["language_kl"] = language_kl(logits, batch["before_ids"], batch["before_log_probs"])
            total = total + self._args.keep_language * losses["language_kl"].sum()
        scale = self._accelerator.num_processes / self._num_tokens if is_accumulated else 1 / len(labels)
        return total * scale, {name: loss.mean() for name, loss in losses.items()}

    def _take(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Take the rows of the next micro-batch, padded."""
        size = self._args.language_batch_size
        positions = self._positions.take(range(self._next, self._next + size), mode="wrap")
        self._next += size * self._accelerator.num_processes
        rows = [self._tensors[position] for position in positions.tolist()]
        batch = stack_language(rows, device)
        for name in rows[0].keys() - batch.keys():
            batch[name] = torch.cat([row[name] for row in rows]).to(device)
        return batch


def _read_record(path: Path, rows: Dataset) -> Dataset | None:
    """Read the record of a run; None if there is none of these rows."""
    if not path.exists():
        return None
    found = Dataset(InMemoryTable(require("pyarrow.parquet").read_table(path)))
    if is_recorded(found) and all(found[name][:] == rows[name][:] for name in ("input_ids", "labels")):
        return found
    logger.warning(
        "%s holds a record of other plain rows. These are recorded now, from the model that was given.", path
    )
    return None
