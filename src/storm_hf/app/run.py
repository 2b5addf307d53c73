"""Start the page: load the checkpoint, render its examples, print the address, and serve until interrupted."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from storm_hf.app.examples import Examples
from storm_hf.app.handlers import PageHandlers
from storm_hf.app.page import build_page, look
from storm_hf.app.session import Session
from storm_hf.errors import ServerError


MAX_FILE_SIZE = "64mb"


def run_page(
    load: Callable[[], Session],
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Show the page until the process is interrupted.

    Args:
        load (`Callable[[], Session]`):
            Gives the session.
        host (`str`, *optional*):
            Address to listen on; by default what Gradio's `GRADIO_SERVER_NAME` says, which Spaces set, or this machine alone.
        port (`int`, *optional*):
            Port; by default what `GRADIO_SERVER_PORT` says, or a free one from 7860 on.
        share (`bool`, *optional*, defaults to `False`):
            Whether Gradio also makes a public address, through its own servers.
        on_ready (`Callable[[str], None]`, *optional*):
            Called with the address once the page answers.

    Raises:
        MissingExtraError: If the extra `app` is not installed.
        ServerError: If the port is taken.
    """
    appearance = look()  # before the model is loaded, which takes longer than to find that Gradio is missing
    session = load()
    with tempfile.TemporaryDirectory(prefix="storm-examples-") as folder:
        examples = Examples.render(session.worlds, Path(folder))
        _warm_up(session, examples)
        page = build_page(PageHandlers(session, examples))
        try:
            _, local, public = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MAX_FILE_SIZE,
                allowed_paths=[folder],
                ssr_mode=False,
                **appearance,
            )
        except OSError as error:
            raise ServerError(f"The page could not be opened: {error} Choose another --port.") from error
        on_ready(public or local)
        page.block_thread()


def _warm_up(session: Session, examples: Examples) -> None:
    """Ask once: the first answer of a process takes several times as long as later ones, and its time would be shown."""
    for example in examples.episodes[:1]:
        session.think(example.clip_path, example.question, example.options)
