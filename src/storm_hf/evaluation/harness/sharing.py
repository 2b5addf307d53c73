"""Several processes that answer the questions of a task together, one for each device.

    lmms-eval: all questions ─► share of each process ─► answers, logged as they come ─► all answers: lmms-eval

lmms-eval would split questions itself, one after the other, and so tear apart those about one clip. Here it sees a single process
in each of them, whose answers are gathered before it scores, so that what it writes is what one process writes.
"""

import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, wait_for_everyone

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.harness.answer_log import LoggedAnswer


_PATIENCE = timedelta(days=1)  # shares are of one size, but answers are not
_SPLIT_BY_LMMS_EVAL = ("RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class AnsweringProcesses:
    """This process among those that answer together; by default it is alone.

    Args:
        rank (`int`, *optional*, defaults to `0`):
            Number of this process. The first writes what lmms-eval returns.
        num_processes (`int`, *optional*, defaults to `1`):
            Number of processes.
    """

    rank: int = 0
    num_processes: int = 1

    @property
    def is_main(self) -> bool:
        """True in the first process."""
        return self.rank == 0

    def share(self, groups: Sequence[Hashable]) -> list[int]:
        """Return the positions of the items of this process. The same groups give the same shares in every process.

        Args:
            groups (`Sequence[Hashable]`):
                Group of each item. A group stays together, in the process that has the fewest items when it comes.
        """
        num_items = [0] * self.num_processes
        rank_of: dict[Hashable, int] = {}
        for group, size in Counter(groups).items():
            rank_of[group] = num_items.index(min(num_items))
            num_items[rank_of[group]] += size
        return [place for place, group in enumerate(groups) if rank_of[group] == self.rank]

    def wait(self) -> None:
        """Return once all processes are here."""
        if self.num_processes > 1:
            wait_for_everyone()

    def gather(self, answers: Mapping[str, LoggedAnswer]) -> dict[str, LoggedAnswer]:
        """Bring together the answers of all processes."""
        if self.num_processes == 1:
            return dict(answers)
        return {key: answer for given in gather_object([dict(answers)]) for key, answer in given.items()}


@contextmanager
def joined_processes(device: str | None) -> Iterator[AnsweringProcesses]:
    """Meet the other processes that the environment names as torch's launcher does, and part from them at the end of the block.

    Args:
        device (`str`, *optional*):
            Device of the model, by default the accelerator of this process.

    Yields:
        [`AnsweringProcesses`]: This process among them, or alone if none are named.

    Raises:
        ConfigurationError: If there is no accelerator left for this process.
    """
    if "WORLD_SIZE" not in os.environ:
        yield AnsweringProcesses()
        return
    is_cpu = device == "cpu" or torch.accelerator.current_accelerator(check_available=True) is None
    num_devices = torch.accelerator.device_count()
    if not is_cpu and int(os.environ["LOCAL_RANK"]) >= num_devices:
        raise ConfigurationError(
            f"Expected at most one process for each of {num_devices} accelerators, got {os.environ['WORLD_SIZE']} processes. "
            f"Set --num-processes {num_devices}."
        )
    state = PartialState(cpu=is_cpu, timeout=_PATIENCE)
    for name in _SPLIT_BY_LMMS_EVAL:
        del os.environ[name]
    yield AnsweringProcesses(state.process_index, state.num_processes)
    state.destroy_process_group()  # not after an error: others may still wait for an answer
