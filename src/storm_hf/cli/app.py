"""`storm app`: a page on which to ask a checkpoint, and to look at its thoughts and change them."""

import logging
from typing import Annotated

import typer

from storm_hf.cli.exits import tell
from storm_hf.cli.loading import DEFAULT_MODEL, default_model, load_model
from storm_hf.cli.video_backend import VideoBackend


EPILOG = """Examples:

[bold]storm app[/bold]   asks the model that `storm demo` trained; its examples are there already

[bold]storm app --model me/storm --port 7860[/bold]

The address goes to stdout, everything else to stderr. Ctrl-C ends it."""


def open_page(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help=f"Folder or Hub name of a STORM.  [dim]\\[default: {DEFAULT_MODEL}][/dim]"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.  [dim]\\[default: a free one from 7860 on][/dim]")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also create a public link through Gradio's servers.")
    ] = False,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Longest clip.")] = 600.0,
    video_backend: VideoBackend = None,
) -> None:
    """Open a page to drop clips on: the answer, what each latent imagined, and what a changed thought does."""
    from storm_hf.app import Session, run_page

    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is there
    folder = model or default_model()
    tell(f"Loading {folder}...")
    run_page(
        lambda: Session.load(folder, max_seconds=max_seconds, load=load_model),
        host=host,
        port=port,
        share=share,
        on_ready=typer.echo,
    )
