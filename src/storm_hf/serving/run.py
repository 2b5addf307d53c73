"""Server of one checkpoint: loads it and serves until Ctrl-C."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from storm_hf.checkpoints.loading import load_checkpoint
from storm_hf.errors import ServerError
from storm_hf.optional import require


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of `storm serve`.

    Args:
        model (`str`):
            Folder or Hub name of the checkpoint.
        name (`str`, *optional*):
            Name that clients use. By default the last part of `model`.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen on.
        port (`int`, *optional*, defaults to `8000`):
            Port to listen on; 0 takes a free one.
        device (`str`, *optional*):
            By default the accelerator, if there is one.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Of the weights.
        max_new_tokens (`int`, *optional*, defaults to `1024`):
            Longest answer.
        max_video_seconds (`float`, *optional*, defaults to `3600`):
            Longest video.
        max_file_bytes (`int`, *optional*, defaults to `67108864`):
            Largest picture or video file.
        max_in_flight (`int`, *optional*, defaults to `64`):
            Requests that may wait or run.
        max_prefix_bytes (`int`, *optional*, defaults to `1073741824`):
            Memory for clips from which further requests about them go on.
        media_folder (`Path`, *optional*):
            Requests may name files below it.
        allows_urls (`bool`, *optional*, defaults to `False`):
            Whether URLs are fetched.
        body_seconds (`float`, *optional*, defaults to `60`):
            Time for the body of a request to arrive.
        api_key (`str`, *optional*):
            Key that clients have to send.
    """

    model: str
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    dtype: str = "auto"
    max_new_tokens: int = 1024
    max_video_seconds: float = 3600.0
    max_file_bytes: int = 64 * 2**20
    max_in_flight: int = 64
    max_prefix_bytes: int = 2**30
    media_folder: Path | None = None
    allows_urls: bool = False
    body_seconds: float = 60.0
    api_key: str | None = None

    @property
    def called(self) -> str:
        """Name that clients use."""
        return self.name or Path(self.model).name


def run_server(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Load the checkpoint and answer until the process ends.

    Args:
        settings ([`ServerSettings`]):
            Settings.
        on_ready (`Callable[[str], None]`):
            Called with the address once requests are answered.

    Raises:
        DependencyError: If the extra `serve` is not installed.
        CheckpointError: If there is no such checkpoint.
        ServerError: If the port is taken.
    """
    for package in ("fastapi", "uvicorn", "jinja2"):
        require(package)
    import uvicorn

    from storm_hf.serving.chat import ChatModel
    from storm_hf.serving.limits import RequestLimiter
    from storm_hf.serving.media import MediaPolicy
    from storm_hf.serving.server import ListeningServer, build_app

    listening = _listen(settings.host, settings.port)  # before the model is loaded, which takes longer
    with listening:
        model, processor = load_checkpoint(settings.model, settings.device or _best_device(), dtype=settings.dtype)
        media = MediaPolicy(
            max_bytes=settings.max_file_bytes,
            max_video_seconds=settings.max_video_seconds,
            folder=settings.media_folder,
            allows_urls=settings.allows_urls,
        )
        chat = ChatModel(settings.called, model, processor, media, settings.max_new_tokens, settings.max_prefix_bytes)
        limiter = RequestLimiter(
            api_key=settings.api_key,
            max_in_flight=settings.max_in_flight,
            max_request_bytes=2 * settings.max_file_bytes,
            max_buffered_bytes=16 * settings.max_file_bytes,
            body_seconds=settings.body_seconds,
        )
        host, port = listening.getsockname()[:2]
        on_ready(f"http://{host}:{port}/")
        ListeningServer(uvicorn.Config(build_app(chat, limiter), log_level="warning")).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ServerError(
            f"Expected to listen on {host}:{port} but {error.strerror}. Choose another --port."
        ) from error


def _best_device() -> str:
    device = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if device is None else device.type
