"""`storm serve`: an OpenAI-compatible endpoint for one checkpoint."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from storm_hf.cli.options import HIGHEST_PORT, DemoModel, Host, MaxNewTokens, VideoBackend, by_default, demo_model
from storm_hf.errors import ConfigurationError


_MOST_MIB = 2**20  # a number that bytes can be counted for, unlike infinity

EPILOG = """Examples:

[bold]storm serve[/bold]   serves the model that `storm demo` trained; open the address it prints: the page shows how to ask

[bold]storm serve --model me/storm-7b --host 0.0.0.0 --device cuda --max-video-seconds 600[/bold]

[bold]STORM_API_KEY=... storm serve --model me/storm-7b[/bold]   only clients that send the key are answered

Requests may set [bold]num_latents[/bold], and [bold]latents[/bold] to an intervention such as zero or latents_only."""


def _refuse_positional(words: list[str] | None) -> list[str] | None:
    """Refuse the model as an argument, its earlier form."""
    if words:
        raise ConfigurationError(f"The model of `storm serve` is an option now: `storm serve --model {words[0]}`.")
    return words


Name = Annotated[str | None, typer.Option(help=by_default("Name that clients use.", "the last part of --model"))]
Device = Annotated[str | None, typer.Option(help=by_default("Such as cpu or cuda.", "the best here"))]
MediaFolder = Annotated[
    Path | None, typer.Option(help="Requests may name files below it as file:///...", exists=True, file_okay=False)
]
AllowUrls = Annotated[
    bool, typer.Option("--allow-urls", help="Fetch http(s) URLs: clients can then make it call any address.")
]
Positional = Annotated[list[str] | None, typer.Argument(hidden=True, callback=_refuse_positional)]
MaxFileMib = Annotated[float, typer.Option(min=0.001, max=_MOST_MIB, help="Largest picture or video file, in MiB.")]
PrefixCacheMib = Annotated[
    float,
    typer.Option(
        min=0, max=_MOST_MIB, help="MiB of memory for clips that were read, for further requests; 0 for none."
    ),
]


def serve_model(
    model: DemoModel = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Name = None,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="Such as bfloat16; auto is that of the checkpoint.")] = "auto",
    max_new_tokens: MaxNewTokens = 1024,
    max_video_seconds: Annotated[float, typer.Option(min=0.1, help="Maximum length of a video, in seconds.")] = 3600.0,
    max_file_mib: MaxFileMib = 64.0,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Requests that may wait or run.")] = 64,
    prefix_cache_mib: PrefixCacheMib = 1024.0,
    body_seconds: Annotated[float, typer.Option(min=0.1, help="Time for a request to arrive, in seconds.")] = 60.0,
    media_folder: MediaFolder = None,
    allow_urls: AllowUrls = False,
    video_backend: VideoBackend = None,
    positional: Positional = None,
) -> None:
    """Serve a model to OpenAI clients: text, pictures and videos, streaming.

    Answers are greedy unless a request sets a temperature. The environment variable STORM_API_KEY sets the key that clients send.
    """
    from storm_hf.serving.run import ServerSettings, run_server

    settings = ServerSettings(
        model=model or demo_model(),
        name=name,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        max_new_tokens=max_new_tokens,
        max_video_seconds=max_video_seconds,
        max_file_bytes=int(max_file_mib * 2**20),
        max_in_flight=max_in_flight,
        max_prefix_bytes=int(prefix_cache_mib * 2**20),
        body_seconds=body_seconds,
        media_folder=media_folder,
        allows_urls=allow_urls,
        api_key=os.environ.get("STORM_API_KEY") or None,
    )
    run_server(settings, on_ready=partial(_announce, settings.called))


def _announce(name: str, url: str) -> None:
    typer.echo(f"storm serve: {name} answers at {url} (Ctrl-C ends it)", err=True)
