"""Faults of the machine while a data set is built."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from storm_hf.errors import MachineError, StormError, first_line, is_machine_fault


ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")
WAITS_SECONDS = tuple(0.05 * 1.6**attempt for attempt in range(10))  # nine seconds in all
_logger = logging.getLogger(__name__)
_WORDS_OF_A_FULL_DISK = (
    "No space left on device",
    "disk is full",
)  # of libraries whose errors are none of the system's


@contextmanager
def machine_faults_named(folder: Path) -> Iterator[None]:
    """Raise faults of the machine, such as a full disk, as one sentence.

    Args:
        folder (`Path`):
            The data set that is built.

    Raises:
        MachineError: If the block fails for such a fault.
    """
    try:
        yield
    except StormError:
        raise
    except Exception as error:
        if not (is_machine_fault(error) or any(words in str(error) for words in _WORDS_OF_A_FULL_DISK)):
            raise
        raise MachineError(
            f"The build of {folder} stopped for a fault of this machine: {first_line(error)}. What is complete stays: mend "
            "that, and give the same command again."
        ) from error


def patient(call: Callable[ArgumentsT, ResultT]) -> Callable[ArgumentsT, ResultT]:
    """Repeat a call that fails for a fault of the machine: a mount may be back, or a file be closed, after some seconds."""

    def call_patiently(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        for seconds in WAITS_SECONDS:
            try:
                return call(*args, **kwargs)
            except MachineError as error:
                _logger.info("Waiting %.2f s, since %s", seconds, first_line(error))
                time.sleep(seconds)
        return call(*args, **kwargs)

    return call_patiently
