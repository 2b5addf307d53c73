"""Random draws of a training step that depend on the row alone, not on how the batch was cut or whether the run was resumed."""

from collections import Counter
from typing import Any

import numpy as np
import torch


class RowDraws:
    """Numbers the rows of an accumulated batch over all processes, and gives each a generator; for a [`~transformers.Trainer`]."""

    accelerator: Any
    args: Any
    state: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._num_rows_numbered: Counter[tuple[int, ...]] = Counter()
        super().__init__(*args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Begin an accumulated batch: its rows are numbered from here."""
        self._num_rows_numbered.clear()
        return super()._get_num_items_in_batch(batch_samples, device)  # type: ignore[misc]

    def _row_generators(self, num_rows: int, *purpose: int) -> list[np.random.Generator]:
        """A generator for each row of the micro-batch, of its own for each `purpose`. To be called once for each."""
        numbered = self._num_rows_numbered
        first = numbered[purpose] * self.accelerator.num_processes + self.accelerator.process_index * num_rows
        numbered[purpose] += num_rows
        step = self.state.global_step
        return [np.random.default_rng([self.args.seed, step, first + row, *purpose]) for row in range(num_rows)]
