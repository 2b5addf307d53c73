"""Errors that storm_hf raises on purpose.

    StormError
    ├── BackboneError              the backbone cannot do what STORM needs of it
    ├── BrokenExtraError           an optional package that is installed but does not load
    ├── CacheError                 a cache that the rollout cannot write to or differentiate through
    ├── CheckpointError            a checkpoint that cannot be resumed from or loaded whole
    ├── ConfigurationError         a setting out of its range, or one that contradicts another
    ├── DatasetError               a data set, row or shard that does not have the expected form
    ├── DemoError                  a piece of the demo that failed, or a folder in which another demo runs
    ├── FrameSelectionError        frames asked of a video in a way that it cannot answer
    ├── InterventionError          latents replaced in a way that does not exist
    ├── IntervalError              scores that no mean and no interval can be had of
    ├── LatentLayoutError          the latent block of a prompt is missing, broken, doubled or in different columns
    ├── LatentShapeError           latents that do not have the shape of the rollout
    ├── MachineError               a fault of the machine, such as a mount that is away or a full disk
    ├── MissingExtraError          an optional package that is not installed
    ├── NonFiniteLossError         a loss that is NaN or infinite, after which training on is no use
    ├── PromptError                a clip or question that a model cannot take
    ├── PublicationError           something that must not leave this machine
    ├── RankMismatchError          processes that hold one sharded model and would run different layers
    ├── ReportError                numbers or pictures that a report cannot show
    ├── RequestError               a request that a server of ours refuses
    ├── ServerError                a server that cannot be reached, or does not answer as expected
    ├── StageError                 a stage of a run that failed or stopped before its end
    ├── StaleWorkError             finished work that was made with other parameters
    ├── TrajectoryShapeError       a target trajectory that does not fit the rollout
    ├── UnsupportedGenerationError a way of generating that cannot think in latents
    ├── VersionError               an installed package that is too old
    ├── VideoReadError             a video that cannot be read
    │   └── VideoTimeoutError      a video that was not read in time
    ├── VideoWriteError            frames that cannot be written as a video
    └── WorldError                 a world, split or episode that cannot exist as asked

Each one is also the built-in error it resembles, so that `except ValueError` keeps its meaning.
"""

import errno

from storm_hf.model.errors_storm import (
    BackboneError,
    CacheError,
    ConfigurationError,
    LatentLayoutError,
    LatentShapeError,
    StormError,
    UnsupportedGenerationError,
    VersionError,
)


class BrokenExtraError(StormError, ImportError):
    """An optional package is installed but does not load; the message names what is missing."""


class CheckpointError(StormError, RuntimeError):
    """A checkpoint that cannot be resumed from or loaded whole."""


class DatasetError(StormError, ValueError):
    """A data set, row or shard that does not have the expected form."""


class DemoError(StormError, RuntimeError):
    """A piece of the demo failed, and the message has the end of its log; or another demo runs in the folder."""


class FrameSelectionError(StormError, ValueError):
    """Frames were asked of a video in a way that it cannot answer."""


class InterventionError(StormError, ValueError):
    """Latents were to be replaced in a way that does not exist."""


class IntervalError(StormError, ValueError):
    """Scores were given of which no mean and no interval can be had."""


class MachineError(StormError, OSError):
    """The machine failed, not the file: a mount that is away, too many open files, an I/O error, a full disk."""


class MissingExtraError(StormError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class NonFiniteLossError(StormError, FloatingPointError):
    """A loss is NaN or infinite; the message has the step and what else is not finite."""


class PromptError(StormError, ValueError):
    """A clip or a question that a model cannot take."""


class PublicationError(StormError, ValueError):
    """Something was to be published that must not leave this machine; the message names it and shows nothing of it."""


class RankMismatchError(StormError, RuntimeError):
    """Processes that hold one sharded model would run different layers, and wait for each other for ever."""


class ReportError(StormError, ValueError):
    """Numbers or pictures that a report cannot show."""


class RequestError(StormError, ValueError):
    """A server of ours refuses a request.

    Args:
        message (`str`):
            Expected, got, and what to do.
        status (`int`, *optional*, defaults to `400`):
            The status of the answer, as HTTP counts.
        param (`str`, *optional*):
            Name of the field that is refused.
    """

    def __init__(self, message: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


class ServerError(StormError, ConnectionError):
    """A server cannot be reached or does not answer as expected; the message names its URL."""


class StageError(StormError, RuntimeError):
    """A stage of a run failed or stopped before its end; the message names its log.

    Args:
        message (`str`):
            Description of the failure.
        exit_code (`int`, *optional*, defaults to `1`):
            Exit code of its process, or 1 where that was no failure.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StaleWorkError(StormError, RuntimeError):
    """Finished work in a folder was made with other parameters."""


class TrajectoryShapeError(StormError, ValueError):
    """A target trajectory does not fit the rollout."""


class VideoReadError(StormError, OSError):
    """A video cannot be read; the message is one sentence that names the file."""


class VideoTimeoutError(VideoReadError, TimeoutError):
    """A video was not read in time. Its contents may be fine.

    Args:
        message (`str`):
            One sentence that names the file.
        timeout_seconds (`float`, *optional*):
            Time that the reading had.
    """

    def __init__(self, message: str, timeout_seconds: float | None = None) -> None:
        super().__init__(message)
        self.timeout_seconds = timeout_seconds


class VideoWriteError(StormError, ValueError):
    """Frames cannot be written as a video."""


class WorldError(StormError, ValueError):
    """A world, split or episode cannot exist as asked."""


_MACHINE_FAULTS = frozenset(
    code
    for code, name in errno.errorcode.items()
    if name
    in {
        *(
            "EIO",
            "EREMOTEIO",
            "ENODEV",
            "ENXIO",
            "EBUSY",
            "ENOMEM",
            "EMFILE",
            "ENFILE",
            "ENOLCK",
        ),  # devices and limits
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM"),  # disks and rights
        *("ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),  # mounts
    }
)


def is_machine_fault(error: BaseException) -> bool:
    """Check whether an error of the system comes from the machine and not from what a file holds."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, OSError) and error.errno in _MACHINE_FAULTS


def one_line(error: BaseException) -> str:
    """Message of an error in one line; the name of its class if it has none."""
    return " ".join(str(error).split()) or f"{type(error).__name__}."


def first_line(error: BaseException) -> str:
    """The first line of a library's error message, without its final stop; the name of its class if the message is empty."""
    return str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__


__all__ = [
    "BackboneError",
    "BrokenExtraError",
    "CacheError",
    "CheckpointError",
    "ConfigurationError",
    "DatasetError",
    "DemoError",
    "FrameSelectionError",
    "IntervalError",
    "InterventionError",
    "LatentLayoutError",
    "LatentShapeError",
    "MachineError",
    "MissingExtraError",
    "NonFiniteLossError",
    "PromptError",
    "PublicationError",
    "RankMismatchError",
    "ReportError",
    "RequestError",
    "ServerError",
    "StageError",
    "StaleWorkError",
    "StormError",
    "TrajectoryShapeError",
    "UnsupportedGenerationError",
    "VersionError",
    "VideoReadError",
    "VideoTimeoutError",
    "VideoWriteError",
    "WorldError",
]
