"""Targets of a whole accumulated batch over all processes, which latents are told apart from.

One batch of four and four accumulated batches of one see the same targets, so that gauges and contrastive losses are equal.
Where the whole batch is one row, it is compared with the targets of earlier batches, without its own of an earlier epoch or
evaluation.

Axes: N rows, K latent steps, D hidden size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from accelerate import Accelerator


MOST_EARLIER = 64  # rows; K x D numbers each
_ROUNDING = 1e-4


class KnownTargets:
    """Targets of the current accumulated batch, and of earlier ones.

    Args:
        accelerator ([`~accelerate.Accelerator`]):
            Gathers over processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._known = self._earlier = torch.empty(0)
        self._next = self._end = 0

    def begin(self, micro_batches: Sequence[torch.Tensor]) -> None:
        """Gather the targets of an accumulated batch, of which each micro-batch is `(num_rows, num_latents, hidden_size)`."""
        mine = torch.cat(list(micro_batches)).detach().float()
        batch, self._next = self._gather(mine)
        self._end = self._next + len(mine)
        earlier = self._earlier.to(batch) if self._earlier.shape[1:] == batch.shape[1:] else batch[:0]
        self._known = batch
        if len(batch) == 1:
            others = earlier[~_is_same(earlier, batch)]
            self._known = torch.cat(
                [batch, others if len(others) else earlier]
            )  # where all are one vector, that is what is logged
            earlier = others
        self._earlier = torch.cat([earlier, batch])[-MOST_EARLIER:]

    def take(self, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Take the turn of the next micro-batch, which is a batch of its own where none was begun, as in an evaluation.

        Args:
            targets (`torch.Tensor` of shape `(num_rows, num_latents, hidden_size)`):
                Targets of the micro-batch.

        Returns:
            `tuple`: All known targets (N, K, D), and the row in which those of the micro-batch begin.
        """
        if self._next + len(targets) > self._end:
            self.begin([targets])
        first = self._next
        self._next += len(targets)
        return self._known, first

    def _gather(self, mine: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Concatenate the rows of all processes, whose numbers may differ, and count those before the own."""
        if self._accelerator.num_processes == 1:
            return mine, 0
        counts = self._accelerator.gather(torch.tensor([len(mine)], device=mine.device)).tolist()
        padded = F.pad(mine, (0, 0, 0, 0, 0, max(counts) - len(mine)))
        of_rank = self._accelerator.gather(padded).split(max(counts))
        rows = [rows[:count] for rows, count in zip(of_rank, counts, strict=True)]
        return torch.cat(rows), sum(counts[: self._accelerator.process_index])


def _is_same(targets: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Mark the targets (N, K, D) that equal one (1, K, D) up to rounding: those of the same row, met again."""
    return (targets - one).abs().amax(dim=(1, 2)) <= _ROUNDING * one.abs().max()
