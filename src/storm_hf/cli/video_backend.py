"""Option `--video-backend` of every command that reads clips."""

from typing import Annotated

import typer


def _choose(backend: str | None) -> str | None:
    """Set the backend while the arguments are read, before a model is loaded."""
    if backend is not None:
        from storm_hf.video import set_video_backend

        set_video_backend(backend)
    return backend


VideoBackend = Annotated[
    str | None,
    typer.Option(
        "--video-backend",
        envvar="STORM_VIDEO_BACKEND",
        callback=_choose,
        help="Decodes clips: pyav, decord or torchcodec.  [dim]\\[default: pyav][/dim]",
    ),
]
