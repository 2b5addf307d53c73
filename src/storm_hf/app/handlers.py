"""Event handlers of the Gradio page. Errors are shown as notices."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from storm_hf.app.examples import Examples
from storm_hf.app.markup import notice_markup, rethought_markup, thinking_markup
from storm_hf.app.session import Session, Thinking
from storm_hf.errors import PromptError, StormError, one_line
from storm_hf.inputs.prompts import form_caveat
from storm_hf.interventions.kind import InterventionKind


EVERY_STEP = "every step"
SAME_STEP = "the same step"
INTERVENTION_OF = {
    "zeros": InterventionKind.zero,
    "noise": InterventionKind.noise_per_question,
    "the mean of its steps": InterventionKind.mean_over_steps,
    "another of its steps": InterventionKind.own,
    "another clip's thought": InterventionKind.donor,
    "its own thought, without the clip": InterventionKind.latents_only,
}

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class PageHandlers:
    """Serves one page.

    Args:
        session ([`Session`]):
            Answers.
        examples ([`Examples`], *optional*):
            Clips that the page offers.
    """

    session: Session
    examples: Examples = field(default_factory=Examples)

    @property
    def step_names(self) -> list[str]:
        """Names of the latent steps on the page."""
        return [f"step {number}" for number in range(1, self.session.num_latents + 1)]

    def ask(self, clip: str | None, question: str, options: str) -> tuple[str, str, Thinking | None]:
        """Answer a question.

        Args:
            clip (`str`, *optional*):
                A video file.
            question (`str`):
                Text of the question.
            options (`str`):
                The closed set of answers with commas between, or nothing.

        Returns:
            `tuple[str, str, Thinking | None]`: Notices and replies, as HTML, and what they are about; None if nothing was answered.
        """
        try:
            path = Path(_expect(clip, "There is no clip yet. Drop one, or choose an example."))
            thinking = self._without_server_path(path, lambda: self.session.think(path, question, _words(options)))
        except StormError as error:
            return notice_markup([one_line(error)]), "", None
        example = self.examples.find(path)
        is_its_question = example is not None and thinking.question.text == example.question
        replies = thinking_markup(thinking, example.answer if example and is_its_question else None)
        return notice_markup(self._caveats(thinking, is_drawn=example is not None)), replies, thinking

    def change(
        self, thinking: Thinking | None, content: str, step: str, source: str, other_clip: str | None
    ) -> tuple[str, str]:
        """Answer again with changed latents.

        Args:
            thinking ([`Thinking`], *optional*):
                Result of `ask`.
            content (`str`):
                A key of `INTERVENTION_OF`.
            step (`str`):
                One of `step_names`, or `EVERY_STEP`.
            source (`str`):
                One of `step_names`, or `SAME_STEP`.
            other_clip (`str`, *optional*):
                A video file.

        Returns:
            `tuple[str, str]`: Notices and replies, as HTML.
        """
        try:
            asked = _expect(thinking, "There is nothing to change yet. Ask something first.")
            kind, steps = INTERVENTION_OF[content], {"step": self._number(step), "source": self._number(source)}
            other = Path(other_clip) if other_clip else None
            again = self._without_server_path(
                other, lambda: self.session.rethink(asked, kind, **steps, other_clip=other)
            )
        except StormError as error:
            return notice_markup([one_line(error)]), ""
        return "", rethought_markup(asked, again)

    def _number(self, step: str) -> int | None:
        return self.step_names.index(step) if step in self.step_names else None

    def _without_server_path(self, clip: Path | None, action: Callable[[], _T]) -> _T:
        """Replace the server's path of a user's file by its name in error messages."""
        try:
            return action()
        except StormError as error:
            message = one_line(error) if clip is None else one_line(error).replace(str(clip), clip.name)
            raise PromptError(message) from error

    def _caveats(self, thinking: Thinking, *, is_drawn: bool) -> list[str]:
        caveats = []
        if self.session.worlds and not is_drawn:
            worlds = " and ".join(self.session.worlds)
            caveats.append(
                f"This model has only ever seen tiny drawn videos (of {worlds}): its answer about a real clip is a guess."
            )
        if caveat := form_caveat(self.session.model.config, bool(thinking.question.options)):
            caveats.append(caveat)
        if thinking.question.clip.num_broken:
            caveats.append("The clip is damaged: some of its frames repeat their nearest good neighbour.")
        return caveats


def _expect(value: _T | None, otherwise: str) -> _T:
    if not value:
        raise PromptError(otherwise)
    return value


def _words(options: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in options.split(",")) if word)
