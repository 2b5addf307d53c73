"""Replies and notices as HTML that stands inside the page. What a model or a user wrote is escaped."""

from collections.abc import Sequence

from storm_hf.app.session import InterventionAnswer, Reply, Session, Thinking
from storm_hf.interventions.kind import InterventionKind
from storm_hf.reporting import frame_data_uri, render_page


_PACKAGE = "storm_hf.app"
_DRAWN = "Pictures: drawn by a small decoder that has only ever seen true thoughts."
_NAMED = "Words: the state of the known thought nearest to a latent, and the share of its similarity that falls on that state."
_TWO_READINGS = "Pictures and words are two readings of a latent and may differ."
_NUMBERS = (
    "This checkpoint has neither a decoder nor a gallery of known thoughts, so its latents are described in numbers."
)
_DIRECT = "The same weights, which were trained to think first. A fair rival is a model trained to answer directly."


def heading_markup(session: Session) -> str:
    """Say what is asked here, and what to expect of it."""
    return render_page(_PACKAGE, "heading.html.j2", session=session)


def welcome_markup() -> str:
    """Stand where the answer will, before there is one."""
    return render_page(_PACKAGE, "welcome.html.j2")


def thinking_markup(thinking: Thinking, truth: str | None = None) -> str:
    """Show the answer after thinking beside the direct one, and each latent.

    Args:
        thinking ([`Thinking`]):
            Both answers.
        truth (`str`, *optional*):
            The correct answer, where it is known.
    """
    titles = [("After thinking", thinking.own, ""), ("Directly, without latents", thinking.direct, _DIRECT)]
    verdict = "" if truth is None else f"The simulator that drew this clip says: {truth}."
    return _replies(titles, thinking.own, "What it imagined", verdict)


def rethought_markup(thinking: Thinking, again: InterventionAnswer) -> str:
    """Show the answer with changed latents beside the own one, with a note on whether the change made a difference."""
    titles = [("With your change", again.reply, ""), ("Its own answer", thinking.own, "")]
    own, changed = thinking.own.text, again.reply.text
    has_no_clip = again.intervention.kind == InterventionKind.latents_only
    verdict = _verdict_without_clip(own, changed) if has_no_clip else _verdict(own, changed, again.donor)
    return _replies(
        titles, again.reply, "What it was fed", verdict, replaced=again.intervention.replaced, donor=again.donor
    )


def notice_markup(sentences: Sequence[str]) -> str:
    """Show sentences that a user should read, such as what went wrong."""
    return render_page(_PACKAGE, "notice.html.j2", sentences=sentences)


def _verdict(own: str, changed: str, donor: str | None) -> str:
    if donor == own == changed:
        return (
            "The answer stays the same, and proves nothing: it is also the answer to the other clip. Try another one."
        )
    if changed == own:
        return "The answer stays the same: for this question, what you changed does not decide it."
    if changed == donor:
        return "The answer is another: the one that the model gives to the other clip. It follows the thought."
    return "The answer is another: it depends on what you changed."


def _verdict_without_clip(own: str, changed: str) -> str:
    if changed == own:
        return (
            "The answer stays the same without the clip: the thought holds what it needs, or the question alone does."
        )
    return "The answer is another without the clip: the thought does not hold all that it needs."


def _replies(
    replies: list[tuple[str, Reply, str]],
    shown: Reply,
    heading: str,
    verdict: str,
    replaced: tuple[int, ...] = (),
    donor: str | None = None,
) -> str:
    # A zero has nothing to draw: what a decoder makes of it is its own habit.
    pictures = [
        None if step.picture is None or not step.norm else frame_data_uri(step.picture) for step in shown.steps
    ]
    return render_page(
        _PACKAGE,
        "reply.html.j2",
        replies=replies,
        steps=list(zip(shown.steps, pictures, strict=True)),
        replaced=replaced,
        heading=heading,
        verdict=verdict,
        explanation=_explanation(shown),
        donor=donor,
    )


def _explanation(shown: Reply) -> str:
    if not any(step.norm for step in shown.steps):
        return ""
    is_drawn = any(step.picture is not None for step in shown.steps)
    is_named = any(step.resembles for step in shown.steps)
    sentences = {
        _DRAWN: is_drawn,
        _NAMED: is_named,
        _TWO_READINGS: is_drawn and is_named,
        _NUMBERS: not (is_drawn or is_named),
    }
    return " ".join(sentence for sentence, is_so in sentences.items() if is_so)
