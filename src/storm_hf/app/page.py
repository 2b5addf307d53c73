"""The page: where its parts stand. What they do is said in `desk.py`; nothing on it is fetched from elsewhere."""

import os
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from storm_hf.app.desk import CONTENT_OF, EVERY_STEP, SAME_STEP, Desk
from storm_hf.optional import require


QUEUE = "model"  # one question at a time, whichever button was pressed
_FORGET_AFTER_SECONDS = 3600
_FONTS = ["system-ui", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "monospace"]


def build_page(desk: Desk) -> Any:
    """Lay out the page.

    Args:
        desk ([`~storm_hf.app.desk.Desk`]):
            Answers when a button is pressed.

    Returns:
        `gradio.Blocks`: Launched with what `look` gives. Clients find the buttons as `/ask` and `/change`.

    Raises:
        MissingExtraError: If the extra `app` is not installed.
    """
    gradio = _gradio()
    blocks = gradio.Blocks(
        title=f"Ask {desk.session.name}",
        analytics_enabled=False,
        delete_cache=(_FORGET_AFTER_SECONDS, _FORGET_AFTER_SECONDS),
    )
    with blocks:
        gradio.Markdown(
            f"# Ask {desk.session.name}\n"
            f"It thinks for {desk.session.num_latents} latent steps before its first word. Look at them, and change them."
        )
        thinking = gradio.State(None, time_to_live=_FORGET_AFTER_SECONDS)
        with gradio.Row():
            _question_column(gradio, desk, thinking)
        gradio.Markdown("## Change what it thinks")
        with gradio.Row():
            _change_column(gradio, desk, thinking)
    return blocks


def look() -> dict[str, Any]:
    """What `launch` needs for the page to look as meant: fonts of the system, and a style sheet."""
    gradio = _gradio()
    css = files("storm_hf.app").joinpath("templates/page.css").read_text(encoding="utf-8")
    return {"theme": gradio.themes.Default(font=_FONTS, font_mono=_MONO_FONTS), "css": css, "footer_links": ["api"]}


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    return require("gradio")


def _question_column(gradio: Any, desk: Desk, thinking: Any) -> None:
    with gradio.Column(min_width=300):
        clip = gradio.Video(label="Clip", sources=["upload"], height=260)
        question = gradio.Textbox(label="Question", placeholder="Where is the ball now?", elem_id="question")
        options = gradio.Textbox(label="Options, with commas between (optional)", placeholder="left, middle, right")
        button = gradio.Button("Ask", variant="primary")
        rows = [(str(one.clip_path), one.question, ", ".join(one.options)) for one in desk.examples.episodes]
        _example_buttons(gradio, "Example", rows, [clip, question, options])
    with gradio.Column(min_width=300):
        notice = gradio.HTML(elem_id="notice")
        replies = gradio.HTML("<p><small>The answer will stand here.</small></p>", elem_id="replies")
    wiring: dict[str, Any] = {
        "fn": desk.ask,
        "inputs": [clip, question, options],
        "outputs": [notice, replies, thinking],
        "concurrency_id": QUEUE,
        "concurrency_limit": 1,
    }
    button.click(**wiring, api_name="ask")
    question.submit(**wiring, api_visibility="private")


def _example_buttons(gradio: Any, name: str, rows: Sequence[tuple[str, ...]], outputs: list[Any]) -> None:
    """Buttons, since the rows of Gradio's own table of examples cannot be reached with the keyboard."""
    with gradio.Row():
        for number, row in enumerate(rows, start=1):
            button = gradio.Button(f"{name} {number}", size="sm", min_width=72)
            values = list(row) if len(row) > 1 else row[0]
            button.click(partial(_given, values), outputs=outputs, api_visibility="private", show_progress="hidden")


def _given(values: list[str] | str) -> list[str] | str:
    return values


def _change_column(gradio: Any, desk: Desk, thinking: Any) -> None:
    with gradio.Column(min_width=300):
        content = gradio.Radio(list(CONTENT_OF), value=next(iter(CONTENT_OF)), label="Feed it")
        step = gradio.Dropdown([EVERY_STEP, *desk.step_names], value=EVERY_STEP, label="In the place of")
        source = gradio.Dropdown([SAME_STEP, *desk.step_names], value=SAME_STEP, label="Taken from")
        other = gradio.Video(label="Another clip", sources=["upload"], height=200)
        _example_buttons(gradio, "Example", [(str(one.clip_path),) for one in desk.examples.episodes], [other])
        button = gradio.Button("Answer again")
    with gradio.Column(min_width=300):
        notice = gradio.HTML(elem_id="change-notice")
        replies = gradio.HTML(elem_id="changed")
    button.click(
        desk.change,
        [thinking, content, step, source, other],
        [notice, replies],
        api_name="change",
        concurrency_id=QUEUE,
        concurrency_limit=1,
    )
