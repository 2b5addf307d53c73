"""Errors that storm_hf raises on purpose.

    StormError
    ├── BackboneError        the backbone cannot do what STORM needs of it
    ├── CheckpointError      a checkpoint that cannot be resumed from or loaded whole
    ├── ConfigurationError   a setting or argument that is out of its range, contradicts another, or does not exist
    ├── DatasetError         a data set, row, shard or measurement that does not have the expected form
    ├── DependencyError      a package that is missing, too old, or does not load
    ├── LatentError          a latent block, latents or a target trajectory that do not fit the rollout
    ├── MachineError         a fault of the machine, such as a mount that is away or a full disk
    ├── PromptError          a clip or question that a model cannot take
    ├── PublicationError     something that must not leave this machine
    ├── RequestError         a request that a server of ours refuses
    ├── ServerError          a server that cannot be reached, or does not answer as expected
    ├── StageError           a stage of a run or a piece of a demo that failed or stopped before its end
    ├── StaleWorkError       finished work that was made with other parameters
    ├── VideoReadError       a video that cannot be read
    └── VideoWriteError      frames that cannot be written as a video

Each one is also the built-in error it resembles, so that `except ValueError` keeps its meaning.
"""

import errno

from storm_hf.model.errors_storm import BackboneError, ConfigurationError, DependencyError, LatentError, StormError


class CheckpointError(StormError, RuntimeError):
    """A checkpoint that cannot be resumed from or loaded whole."""


class DatasetError(StormError, ValueError):
    """A data set, row, shard or measurement that does not have the expected form."""


class MachineError(StormError, OSError):
    """The machine failed, not the file: a mount that is away, too many open files, an I/O error, a full disk."""


class PromptError(StormError, ValueError):
    """A clip or a question that a model cannot take."""


class PublicationError(StormError, ValueError):
    """Something was to be published that must not leave this machine; the message names it and shows nothing of it."""


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
    """A stage of a run or a piece of a demo failed or stopped before its end; the message names its log or its step.

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


class VideoReadError(StormError, OSError):
    """A video cannot be read.

    Args:
        message (`str`):
            One sentence that names the file.
        timeout_seconds (`float`, *optional*):
            Time that the reading had, if it was not enough. The contents may be fine then.
    """

    def __init__(self, message: str, timeout_seconds: float | None = None) -> None:
        super().__init__(message)
        self.timeout_seconds = timeout_seconds


class VideoWriteError(StormError, ValueError):
    """Frames cannot be written as a video."""


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
    "CheckpointError",
    "ConfigurationError",
    "DatasetError",
    "DependencyError",
    "LatentError",
    "MachineError",
    "PromptError",
    "PublicationError",
    "RequestError",
    "ServerError",
    "StageError",
    "StaleWorkError",
    "StormError",
    "VideoReadError",
    "VideoWriteError",
]
