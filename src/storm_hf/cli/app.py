"""`storm app`: a page on which to ask a checkpoint, and to look at its thoughts and change them."""

import logging
from typing import Annotated

import typer

from storm_hf.cli.options import HIGHEST_PORT, DemoModel, Host, VideoBackend, by_default, demo_model, load_model
from storm_hf.cli.output import print_message


EPILOG = """Examples:

[bold]storm app[/bold]   the model that `storm demo` trained, with examples

[bold]storm app --model me/storm --port 7860[/bold]

The address goes to stdout, everything else to stderr. Ctrl-C ends it."""


def open_page(
    model: DemoModel = None,
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_PORT, help=by_default("Port to listen on.", "a free one from 7860 on")),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also create a public link through Gradio's servers.")
    ] = False,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Maximum length of a clip, in seconds.")] = 600.0,
    video_backend: VideoBackend = None,
) -> None:
    """Open a browser page that asks a model about clips, draws each latent, and answers again with other latents."""
    from storm_hf.optional import require

    require("gradio")  # before the model is loaded
    from storm_hf.app import Session, run_page

    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is there
    folder = model or demo_model()
    print_message(f"Loading {folder}...")
    run_page(
        lambda: Session.load(folder, max_seconds=max_seconds, load=load_model),
        host=host,
        port=port,
        share=share,
        on_ready=typer.echo,
    )
