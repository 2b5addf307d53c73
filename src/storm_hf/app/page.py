"""Gradio page: its layout, and its start for a checkpoint. Nothing on it is fetched from elsewhere."""

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from storm_hf.app.examples import Examples
from storm_hf.app.handlers import EVERY_STEP, INTERVENTION_OF, SAME_STEP, PageHandlers
from storm_hf.app.markup import heading_markup, welcome_markup
from storm_hf.app.session import Session, Thinking
from storm_hf.errors import ServerError
from storm_hf.interventions.kind import InterventionKind
from storm_hf.optional import require


QUEUE = "model"  # one question at a time, whichever button was pressed
_FORGET_AFTER_SECONDS = 3600
_FONTS = ["system-ui", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "monospace"]
_MISSING_WORDS = {"common.complete": "Done"}  # Gradio 6.31 reads the key aloud: no language has the word
_COLUMN_PX = 300  # narrower windows have one column


def build_page(handlers: PageHandlers) -> Any:
    """Lay out the page.

    Args:
        handlers ([`~storm_hf.app.handlers.PageHandlers`]):
            Answers when a button is pressed.

    Returns:
        `gradio.Blocks`: Launched with what `look` gives. Clients find the buttons as `/ask` and `/change`.

    Raises:
        DependencyError: If the extra `app` is not installed.
    """
    gradio = _gradio()
    blocks = gradio.Blocks(
        title=f"Ask {handlers.session.name}",
        analytics_enabled=False,
        delete_cache=(_FORGET_AFTER_SECONDS, _FORGET_AFTER_SECONDS),
    )
    with blocks:
        gradio.HTML(heading_markup(handlers.session))
        thinking = gradio.State(None, time_to_live=_FORGET_AFTER_SECONDS)
        with gradio.Row():
            asked = _asking(gradio, handlers, thinking)
        with gradio.Column(visible=False) as change_part:  # until there is something to change
            gradio.HTML('<h2 class="storm-form-title">Change what it thinks</h2>')
            with gradio.Row():
                change_outputs = _changing(gradio, handlers, thinking)
        asked.then(partial(_offer_change, gradio), thinking, [change_part, *change_outputs], api_visibility="private")
    return blocks


def look() -> dict[str, Any]:
    """Theme, style sheet and missing words, as arguments of `launch`."""
    gradio = _gradio()
    theme = gradio.themes.Default(primary_hue="violet", font=_FONTS, font_mono=_MONO_FONTS).set(
        body_text_color_subdued="*neutral_500",  # what Gradio takes is too pale to read
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
    )
    css = files("storm_hf.app").joinpath("templates/page.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": css, "footer_links": ["api"], "i18n": gradio.I18n(en=_MISSING_WORDS)}


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    return require("gradio")


def _asking(gradio: ModuleType, handlers: PageHandlers, thinking: Any) -> Any:
    """The upper row: a form, and what became of it. Returns the event of asking."""
    with gradio.Column(min_width=_COLUMN_PX):
        clip = gradio.Video(label="Clip", sources=["upload"], height=260)
        examples = gradio.Column(visible=bool(handlers.examples.episodes))
        question = gradio.Textbox(label="Question", placeholder="Where is the ball now?", elem_id="question")
        options = gradio.Textbox(label="Options, with commas between (optional)", placeholder="left, middle, right")
        button = gradio.Button("Ask", variant="primary")
        rows = [(str(one.clip_path), one.question, ", ".join(one.options)) for one in handlers.examples.episodes]
        with examples:
            _example_buttons(
                gradio, "Clips that no training has seen, with a question:", rows, [clip, question, options]
            )
    with gradio.Column(min_width=_COLUMN_PX):
        notice = gradio.HTML(elem_id="notice")
        replies = gradio.HTML(welcome_markup(), elem_id="replies")
    clip.change(_nothing, None, notice, api_visibility="private")  # a notice is about the clip before
    return gradio.on(
        [button.click, question.submit, options.submit],
        handlers.ask,
        [clip, question, options],
        [notice, replies, thinking],
        api_name="ask",
        concurrency_id=QUEUE,
        concurrency_limit=1,
    )


def _nothing() -> str:
    return ""


def _changing(gradio: ModuleType, handlers: PageHandlers, thinking: Any) -> list[Any]:
    """The lower row: a form, and what became of it. Returns what is emptied by the next question."""
    with gradio.Column(min_width=_COLUMN_PX):
        content = gradio.Radio(list(INTERVENTION_OF), value=next(iter(INTERVENTION_OF)), label="Feed it")
        step = gradio.Dropdown([EVERY_STEP, *handlers.step_names], value=EVERY_STEP, label="In the place of")
        source = gradio.Dropdown(
            [SAME_STEP, *handlers.step_names], value=SAME_STEP, label="Taken from", visible=False, elem_id="source"
        )
        with gradio.Column(visible=False) as other_part:
            other = gradio.Video(label="Another clip", sources=["upload"], height=200)
            clips = [(str(one.clip_path),) for one in handlers.examples.episodes]
            _example_buttons(gradio, "It will be asked the same question:", clips, [other])
        button = gradio.Button("Answer again", variant="primary")
    with gradio.Column(min_width=_COLUMN_PX):
        notice = gradio.HTML(elem_id="change-notice")
        replies = gradio.HTML(elem_id="changed")
    button.click(
        handlers.change,
        [thinking, content, step, source, other],
        [notice, replies],
        api_name="change",
        concurrency_id=QUEUE,
        concurrency_limit=1,
    )
    content.change(partial(_needed, gradio, handlers), content, [step, source, other_part], api_visibility="private")
    return [notice, replies]


def _needed(gradio: ModuleType, handlers: PageHandlers, content: str) -> tuple[Any, Any, Any]:
    """Show the fields that a content needs: which step it replaces, which one it is taken from, and another clip."""
    kind = INTERVENTION_OF[content]
    sources = handlers.step_names if kind == InterventionKind.own else [SAME_STEP, *handlers.step_names]
    source = gradio.update(
        visible=kind in (InterventionKind.own, InterventionKind.donor), choices=sources, value=sources[0]
    )
    is_other, has_clip = kind == InterventionKind.donor, kind != InterventionKind.latents_only
    return gradio.update(visible=has_clip), source, gradio.update(visible=is_other)


def _offer_change(gradio: ModuleType, thinking: Thinking | None) -> tuple[Any, str, str]:
    """Show the lower row once something was answered, without what an earlier question left there."""
    return gradio.update(visible=thinking is not None), "", ""


def _example_buttons(gradio: ModuleType, caption: str, rows: Sequence[tuple[str, ...]], outputs: list[Any]) -> None:
    """Buttons, since the rows of Gradio's own table of examples cannot be reached with the keyboard."""
    gradio.HTML(f'<p class="storm-caption"><small>{caption}</small></p>')
    with gradio.Row():
        for number, row in enumerate(rows, start=1):
            button = gradio.Button(f"Example {number}", size="sm", min_width=72)
            values = list(row) if len(row) > 1 else row[0]
            button.click(partial(_given, values), outputs=outputs, api_visibility="private", show_progress="hidden")


def _given(values: list[str] | str) -> list[str] | str:
    return values


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
        DependencyError: If the extra `app` is not installed.
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
