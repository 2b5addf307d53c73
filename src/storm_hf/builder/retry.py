"""Rows that were rejected and are tried again: those of a reason that has gone, such as a clip that was mended."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from storm_hf.builder.filtering import kept_rows
from storm_hf.builder.progress import (
    ANNOTATIONS,
    EARLIER,
    PROMPTS,
    SELECTION_STEP,
    THOUGHTS,
    Plan,
    Refused,
    Selection,
    read_refused,
    record_path,
)
from storm_hf.builder.progress import SELECTION_FILE as SELECTION
from storm_hf.builder.sources import renew_stamps
from storm_hf.errors import DatasetError, MachineError, StormError, first_line, is_machine_fault
from storm_hf.pipeline import Workspace
from storm_hf.target_trajectory.schema import DATA, MANIFEST


_RETRY = "work/retry"


def retry_rows(folder: str | Path, reason: str) -> int:
    """Have the next build of a folder try the rows again that were rejected for a reason.

    The shards with such rows, and what was made of them, are removed. The command that built the folder makes them again.

    Args:
        folder (`str` or `Path`):
            The data set, which no process is building.
        reason (`str`):
            Kind of reason, as `storm build status` counts them: `unreadable`, `missing`, ...

    Returns:
        `int`: Rows that will be tried again.

    Raises:
        DatasetError: If there is no build, or no such row; a row that was rejected while annotations were read is in no shard.
    """
    workspace = Workspace(Path(folder).absolute())
    plan = Plan.load(workspace)
    if plan is None:
        raise DatasetError(f"Expected the folder of a build but {folder} holds none that has read its annotations.")
    count = _reopen(workspace, plan, lambda refused: refused.kind == reason)
    if count == 0:
        raise DatasetError(
            f"Expected rows of {folder} that were rejected as {reason!r} but there are none in its shards. `storm build status "
            f"{folder}` counts the reasons. Rows rejected in {Path(ANNOTATIONS).name} need a new folder."
        )
    return count


def reopen_timed_out(workspace: Workspace, plan: Plan, timeout_seconds: float) -> int:
    """Take up the rows again whose clips had less time than they would have now; return how many there are."""
    return _reopen(workspace, plan, lambda refused: (refused.timeout_seconds or timeout_seconds) < timeout_seconds)


def _reopen(workspace: Workspace, plan: Plan, is_passing: Callable[[Refused], bool]) -> int:
    """Remove the shards with rejected rows of a kind and all that was made of them; return how many such rows there are.

    What says that the data set is complete goes first, and what says which rows were rejected goes last, so that a process
    that is killed on the way can be begun again.
    """
    if not any(_shards_with(workspace, plan, step, is_passing) for step in (PROMPTS, THOUGHTS)):
        return 0  # nothing is written: the folder may be read-only
    with workspace.locked(_RETRY, MANIFEST):
        found = {step: _shards_with(workspace, plan, step, is_passing) for step in (PROMPTS, THOUGHTS)}
        shards = {*found[PROMPTS], *found[THOUGHTS]}
        if shards:
            shards |= {name for name in plan.num_rows if name not in shards and _has_lost_videos(workspace, name)}
            for name in shards:
                renew_stamps(workspace, name)
            _remove_what_follows(workspace, shards)
            _remove(record_path(workspace, THOUGHTS, name) for name in shards)
            _remove(record_path(workspace, PROMPTS, name) for name in found[PROMPTS])
        return sum(sum(counts.values()) for counts in found.values())


def _shards_with(workspace: Workspace, plan: Plan, step: str, is_passing: Callable[[Refused], bool]) -> dict[str, int]:
    """Find the shards of a step with such rows, and how many each has."""
    paths = {name: path for name in plan.num_rows if (path := record_path(workspace, step, name)).exists()}
    counts = {name: sum(map(is_passing, read_refused(path))) for name, path in paths.items()}
    return {name: count for name, count in counts.items() if count}


def _has_lost_videos(workspace: Workspace, shard: str) -> bool:
    """Check whether thought videos of a shard were removed at the end of a build: other rows may be kept this time."""
    if not record_path(workspace, THOUGHTS, shard).exists():
        return False
    return any(not (workspace.root / row.thought["path"]).exists() for row in kept_rows(workspace, shard))


def _remove_what_follows(workspace: Workspace, shards: set[str]) -> None:
    (workspace.root / MANIFEST).unlink(missing_ok=True)
    selection = Selection.load(workspace)
    if selection is None:
        return
    _remove(workspace.shard(DATA, name) for name, records in selection.shards.items() if records in shards)
    workspace.shard(SELECTION_STEP, SELECTION).replace(workspace.shard(SELECTION_STEP, EARLIER))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


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
