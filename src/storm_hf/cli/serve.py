"""`storm serve`: an OpenAI-compatible endpoint for one checkpoint."""

import os
from pathlib import Path
from typing import Annotated

import typer

from storm_hf.cli.video_backend import VideoBackend


EPILOG = """Examples:

[bold]storm serve runs/demo/storm[/bold]   then open the address it prints: the page shows how to ask

[bold]storm serve me/storm-7b --host 0.0.0.0 --device cuda --max-video-seconds 600[/bold]

[bold]STORM_API_KEY=... storm serve me/storm-7b[/bold]   only clients that send the key are answered

Requests may set [bold]num_latents[/bold], and [bold]latents[/bold] to an intervention such as zero or latents_only."""


def serve_model(
    model: Annotated[str, typer.Argument(help="Folder or Hub name of a STORM.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None,
        typer.Option(help="Name that clients use.  [dim]\\[default: the last part of its name][/dim]"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda.  [dim]\\[default: the best here][/dim]")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Such as bfloat16; auto is that of the checkpoint.")] = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    max_video_seconds: Annotated[float, typer.Option(min=0.1, help="Longest video.")] = 3600.0,
    max_file_mib: Annotated[float, typer.Option(min=0.001, help="Largest picture or video file.")] = 64.0,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Requests that may wait or run.")] = 64,
    body_seconds: Annotated[float, typer.Option(min=0.1, help="Time for a request to arrive.")] = 60.0,
    media_folder: Annotated[
        Path | None, typer.Option(help="Requests may name files below it as file:///...", exists=True, file_okay=False)
    ] = None,
    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Fetch http(s) URLs: clients can then make it call any address."),
    ] = False,
    video_backend: VideoBackend = None,
) -> None:
    """Serve a model to OpenAI clients: text, pictures and videos, streaming.

    Answers are greedy unless a request sets a temperature. The environment variable STORM_API_KEY sets the key that clients send.
    """
    from storm_hf.serving.run import ServerSettings, run_server

    settings = ServerSettings(
        model=model,
        name=name,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        max_new_tokens=max_new_tokens,
        max_video_seconds=max_video_seconds,
        max_file_bytes=int(max_file_mib * 2**20),
        max_in_flight=max_in_flight,
        body_seconds=body_seconds,
        media_folder=media_folder,
        allows_urls=allow_urls,
        api_key=os.environ.get("STORM_API_KEY") or None,
    )
    run_server(
        settings,
        on_ready=lambda url: typer.echo(f"storm serve: {settings.called} answers at {url} (Ctrl-C ends it)", err=True),
    )
