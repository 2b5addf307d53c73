"""The one setting that chooses what decodes clips: `video_backend`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.video.library_pool import borrowed_process
from storm_hf.video.limits import ReadingBounds, reading_defaults


VideoBackend = Literal["auto", "pyav", "decord", "torchcodec"]
BACKENDS = get_args(VideoBackend)
_WITHOUT_LIBRARY = ("auto", "pyav")
# `auto` is PyAV and not the fastest library that is there: the same call must give the same pixels on every machine, and
# PyAV is always there and reads damaged files. What torchcodec gains in decoding is lost again, since PyAV must look at
# the file first.
_BACKEND_OF_AUTO = "pyav"
VARIABLE = "STORM_VIDEO_BACKEND"


def set_video_backend(backend: str) -> None:
    """Choose what decodes clips in this process, and in those that it starts from now on, such as workers of a data loader.

    Args:
        backend (`str`):
            `auto`, `pyav`, `decord` or `torchcodec`. `auto` takes the choice back.

    Raises:
        ConfigurationError: If there is no such backend.
        MissingExtraError: If it is not installed.
        BrokenExtraError: If it is installed but does not load.
    """
    check_video_backend(backend)
    if backend == "auto":
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = backend


def use_video_backend(backend: str | None) -> None:
    """Set the backend that a command or a trainer was given, or check the one that the environment names.

    Args:
        backend (`str`, *optional*):
            As in `set_video_backend`. None leaves the choice to the environment.

    Raises:
        ConfigurationError: If there is no such backend.
        MissingExtraError: If it is not installed.
        BrokenExtraError: If it is installed but does not load.
    """
    if backend is None:
        check_video_backend(video_backend())
    else:
        set_video_backend(backend)


def check_video_backend(backend: str) -> None:
    """Check that a backend exists and loads here, so that hours of work do not end at the first clip.

    A library is loaded in a process of its own, which stays for the first clip.

    Args:
        backend (`str`):
            `auto`, `pyav`, `decord` or `torchcodec`.

    Raises:
        ConfigurationError: If there is no such backend.
        MissingExtraError: If it is not installed.
        BrokenExtraError: If it is installed but does not load.
    """
    check_backend_name(backend)
    if backend not in _WITHOUT_LIBRARY:
        with borrowed_process(backend, ReadingBounds(Path())):
            pass


def check_backend_name(backend: str) -> None:
    """Raise [`ConfigurationError`] if there is no backend of this name."""
    if backend not in BACKENDS:
        raise ConfigurationError(f"Expected a video_backend among {', '.join(BACKENDS)} but got {backend!r}.")


def video_backend(environment: Mapping[str, str] = os.environ) -> str:
    """Return the backend that `auto` means here: of `bounded_reading`, else of `set_video_backend`, else PyAV.

    Raises:
        ConfigurationError: If the environment variable `STORM_VIDEO_BACKEND` names no backend.
    """
    chosen = reading_defaults().backend
    if chosen == "auto":
        chosen = environment.get(VARIABLE) or "auto"
    if chosen not in BACKENDS:
        raise ConfigurationError(f"Expected {VARIABLE} to be one of {', '.join(BACKENDS)} but it is {chosen!r}.")
    return _BACKEND_OF_AUTO if chosen == "auto" else chosen


def other_backend(backend: str = "auto") -> dict[str, str]:
    """Name the backend of a setting for a record of what frames depend on.

    Args:
        backend (`str`, *optional*, defaults to `"auto"`):
            The setting; `auto` is looked up.

    Returns:
        `dict[str, str]`: `video_backend` and its name. Empty for PyAV, which records of earlier versions do not name: other
            backends may round colours in another way.
    """
    name = video_backend() if backend == "auto" else backend
    return {} if name == _BACKEND_OF_AUTO else {"video_backend": name}


def chosen_backend(backend: str, path: str | os.PathLike[str]) -> str:
    """Return the backend that reads a clip.

    Raises:
        VideoReadError: If there is no such backend.
    """
    if backend not in BACKENDS:
        raise VideoReadError(f"{path} was asked of the backend {backend!r}; expected one of {', '.join(BACKENDS)}.")
    return video_backend() if backend == "auto" else backend
