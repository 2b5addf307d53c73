"""Replies and notices as HTML that stands inside the page. What a model or a user wrote is escaped."""

from collections.abc import Sequence

from storm_hf.app.session import Reply, Thinking
from storm_hf.reporting import frame_data_uri, render_page


_PACKAGE = "storm_hf.app"
_DRAWN = "Drawn by a decoder that has only ever seen true thoughts. "
_NAMED = "Below each step: what the ten nearest known thoughts show."
_NUMBERS = (
    "This checkpoint has neither a decoder nor a gallery of known thoughts, so its latents are described in numbers."
)


def thinking_markup(thinking: Thinking) -> str:
    """Show the answer after thinking beside the direct one, and each latent."""
    titles = [("After thinking", thinking.own), ("Directly, without latents", thinking.direct)]
    return _replies(titles, thinking.own, "What it imagined")


def rethought_markup(thinking: Thinking, changed: Reply) -> str:
    """Show the answer with changed latents beside the own one, and say whether the change made a difference."""
    verdict = (
        "The answer stays the same: for this question that change does not decide it."
        if changed.text == thinking.own.text
        else "The answer is another: it depends on what you changed."
    )
    titles = [("With your change", changed), ("Its own answer", thinking.own)]
    return _replies(titles, changed, "What it was fed", verdict)


def notice_markup(sentences: Sequence[str]) -> str:
    """Show sentences that a user should read, such as what went wrong."""
    return render_page(_PACKAGE, "notice.html.j2", sentences=sentences)


def _replies(replies: list[tuple[str, Reply]], shown: Reply, heading: str, verdict: str = "") -> str:
    pictures = [None if step.picture is None else frame_data_uri(step.picture) for step in shown.steps]
    return render_page(
        _PACKAGE,
        "reply.html.j2",
        replies=replies,
        shown=shown,
        heading=heading,
        verdict=verdict,
        pictures={shown: pictures},
        explanation=_explanation(shown),
    )


def _explanation(shown: Reply) -> str:
    is_drawn = any(step.picture is not None for step in shown.steps)
    is_named = any(step.resembles for step in shown.steps)
    return (_DRAWN if is_drawn else "") + (_NAMED if is_named else "") or _NUMBERS
