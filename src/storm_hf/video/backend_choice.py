"""The one setting that chooses what decodes clips: `video_backend`."""

import os
from collections.abc import Mapping
from typing import Literal, get_args

from storm_hf.errors import ConfigurationError, VideoReadError
from storm_hf.video.limits import reading_defaults


VideoBackend = Literal["auto", "pyav", "decord", "torchcodec"]
BACKENDS = get_args(VideoBackend)
# `auto` is PyAV and not the fastest library that is there: the same call must give the same pixels on every machine, and
# PyAV is always there and reads damaged files. What torchcodec gains in decoding is lost again, since PyAV must look at
# the file first.
_BACKEND_OF_AUTO = "pyav"
_VARIABLE = "STORM_VIDEO_BACKEND"


def set_video_backend(backend: str) -> None:
    """Choose what decodes clips in this process, and in those that it starts from now on, such as workers of a data loader.

    Args:
        backend (`str`):
            `auto`, `pyav`, `decord` or `torchcodec`. `auto` takes the choice back.

    Raises:
        ConfigurationError: If there is no such backend.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(f"Expected a video_backend among {', '.join(BACKENDS)} but got {backend!r}.")
    if backend == "auto":
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = backend


def video_backend(environment: Mapping[str, str] = os.environ) -> str:
    """Return the backend that `auto` means here: of `bounded_reading`, else of `set_video_backend`, else PyAV.

    Raises:
        ConfigurationError: If the environment variable `STORM_VIDEO_BACKEND` names no backend.
    """
    chosen = reading_defaults().backend
    if chosen == "auto":
        chosen = environment.get(_VARIABLE) or "auto"
    if chosen not in BACKENDS:
        raise ConfigurationError(f"Expected {_VARIABLE} to be one of {', '.join(BACKENDS)} but it is {chosen!r}.")
    return _BACKEND_OF_AUTO if chosen == "auto" else chosen


def chosen_backend(backend: str, path: str | os.PathLike[str]) -> str:
    """Return the backend that reads a clip.

    Raises:
        VideoReadError: If there is no such backend.
    """
    if backend not in BACKENDS:
        raise VideoReadError(f"{path} was asked of the backend {backend!r}; expected one of {', '.join(BACKENDS)}.")
    return video_backend() if backend == "auto" else backend
