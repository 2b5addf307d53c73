"""A question of a benchmark, and what a scorer reads in an answer to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Literal


QuestionKind = Literal["multiple-choice", "yes_no", "caption_matching", "captioning", "open-ended"]


@dataclass(frozen=True)
class Question:
    """Question, as the scorers see it.

    Args:
        text (`str`):
            The question, without its options.
        options (`tuple[str, ...]`):
            Texts of the options in the order in which they were shown, without their labels. Empty for open questions and for
            yes or no.
        answer (`str`):
            The correct one: the label of an option, `yes` or `no`, or the expected text of an open question.
        kind (`str`, *optional*, defaults to `"multiple-choice"`):
            Form of the question; `captioning` shows no options, those here are for its judge.
        labels (`tuple[str, ...]`, *optional*):
            Labels of the options: `A`, `B`, … by default, `Option 1` or `Caption A` in caption matching.
        id (`str`, *optional*, defaults to `""`):
            Its name in the data set.
        video (`str`, *optional*, defaults to `""`):
            Its clip. Questions about one clip are not independent.
        groups (`Mapping[str, str]`, *optional*):
            Groups of sub-scores that it belongs to, such as `{"duration": "short"}`.
    """

    text: str
    options: tuple[str, ...]
    answer: str
    kind: QuestionKind = "multiple-choice"
    labels: tuple[str, ...] = ()
    id: str = ""
    video: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def option_labels(self) -> tuple[str, ...]:
        """Labels of the options."""
        return self.labels or tuple(ascii_uppercase[: len(self.options)])

    @property
    def answer_text(self) -> str:
        """The correct option's text, or the expected answer where there are no options."""
        named = dict(zip(self.option_labels, self.options, strict=True))
        return named.get(self.answer, self.answer)


@dataclass(frozen=True)
class Reading:
    """Reading of an answer by a scorer.

    Args:
        choice (`str` or `None`):
            The label, `yes` or `no`, or the open answer that it read.
        correct (`bool` or `None`):
            Whether it is correct; `None` where the rule leaves it to a judge.
        readable (`bool`):
            Whether the rule found an answer at all.
        counted (`bool`, *optional*, defaults to `True`):
            Whether the question belongs to the denominator of this scorer.
    """

    choice: str | None
    correct: bool | None
    readable: bool
    counted: bool = True


def closed_reading(choice: str | None, question: Question) -> Reading:
    """The reading of a rule that marks the correct option as correct and everything else as wrong."""
    return Reading(choice, choice == question.answer, choice is not None)
