"""Leak gate of chains of thought that are drawn as text: does a picture state the answer? No model is asked."""

import re
from dataclasses import dataclass

from storm_hf.annotations.record import Annotation
from storm_hf.inputs.wording import LETTERS
from storm_hf.thought_video.record import ThoughtVideo


_STATEMENT = r"\b(?:answer|option|choice)\b[^.!?\n]*?"


@dataclass(frozen=True)
class StatedAnswerGate:
    """Refuses a rendered chain that states the answer: "so the answer is B", "the correct option is a red cup".

    That a step mentions the answer is no statement. The last step is left out before (`keeps_last_step`).
    """

    def check(self, annotation: Annotation, thought: ThoughtVideo) -> str | None:
        """Look for the answer and for its letter in the drawn text, which is the prompt of the thought video."""
        for number, text in enumerate(thought.prompt.splitlines(), start=1):
            if any(pattern.search(text) for pattern in _statements(annotation)):
                return f"stated answer: picture {number} of the chain says {_shortened(text)!r}"
        return None


def _statements(annotation: Annotation) -> list[re.Pattern[str]]:
    patterns = [re.compile(rf"{_STATEMENT}(?<!\w){re.escape(annotation.answer)}(?!\w)", re.IGNORECASE)]
    if annotation.answer in annotation.options[: len(LETTERS)]:
        letter = LETTERS[annotation.options.index(annotation.answer)]
        # Capital, and at the end of what is said: the English article "A" is no option.
        patterns.append(re.compile(rf"(?i:{_STATEMENT})(?:\({letter}\)|\b{letter}(?=[.,;:!?)]|\s*$))"))
    return patterns


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"...{text[-77:]}"
