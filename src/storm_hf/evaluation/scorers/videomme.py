"""Video-MME: the letter of one of four options.

`official` is what `evaluation/eval_your_results.py` of the benchmark's repository counts. Its quirks are kept, since published
numbers have them: two of its phrases are glued together for lack of a comma, so "Best option: D" reads as B, from "Best".
`lmms` is what the task `videomme` of lmms-eval 0.7 counts.

The parser of option letters in free text is that of lmms-eval 0.7 (`_task_utils/mcq_extract.py`). It collects every place where a letter stands in a known form, and takes the form that it trusts most; among places of the same
form the last one. A letter within a word counts for the weaker forms, so "Maybe a Cat" reads as C.
"""

import re
from collections.abc import Callable, Iterator

from storm_hf.evaluation.scorers.question import Question, Reading, closed_reading


_LETTERS = "ABCD"
_PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",  # glued, as published
    "Best answer:Best option:",
)


def read_official(question: Question, completion: str) -> Reading:
    """Take the first capital of A to D, once a few phrases are gone. Where there is none, the question leaves the denominator."""
    for phrase in _PHRASES:
        completion = completion.replace(phrase, "")
    letter = re.search(f"[{_LETTERS}]", completion)
    if letter is None:
        return Reading(None, False, readable=False, counted=False)
    return closed_reading(letter[0], question)


def read_lmms(question: Question, completion: str) -> Reading:
    """Take the letter that lmms-eval is most confident of. Where there is none, the answer is wrong."""
    return closed_reading(_last_confident_letter(completion, _LETTERS), question)


_ENDS = ",.!?;:'\""  # taken off one after the other, each from both sides
_STATEMENTS = (
    *(
        "the answer is",
        "answer is",
        "the correct answer is",
        "correct answer is",
        "the best answer is",
        "best answer is",
    ),
    *("the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is"),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_Place = tuple[int, int]  # trust, position
# From the text before a letter and the text behind it in a form to the trust in that form.
_FORMS = (("(", ")", 6), ("", ".", 5), ("", ":", 4), ("", ")", 3), ("", " ", 2))


def _last_confident_letter(text: str, letters: str) -> str | None:
    """Find the letter that a text gives as its answer, or `None`.

    Args:
        text (`str`):
            The answer, without reasoning.
        letters (`str`):
            Those of the options, capitals.
    """
    text = text.strip()
    for character in _ENDS:
        text = text.strip(character)
    padded = f" {text} "
    if not padded.strip():
        return None
    found = _best(padded, letters, _confident_places) or _best(padded, letters, _any_place)
    return found


def _best(text: str, letters: str, places: Callable[[str, str], Iterator[_Place]]) -> str | None:
    """The letter with the best place; the earlier letter where two places are equally good."""
    ranked = [(place, -index, letter) for index, letter in enumerate(letters) for place in places(text, letter)]
    return max(ranked)[2] if ranked else None


def _confident_places(text: str, letter: str) -> Iterator[_Place]:
    for before, behind, trust in _FORMS:
        if (form := f"{before}{letter}{behind}") in text:
            yield trust, text.rfind(form)
    yield from ((7, position) for position in _stated(text, letter))
    stripped = text.strip()
    if stripped.startswith(letter) and not stripped[1:2].isalpha():
        yield 10, 0
    if stripped.endswith(letter) and not stripped[-2:-1].isalpha():
        yield 9, len(text) - 1


def _stated(text: str, letter: str) -> Iterator[int]:
    """Position of the first letter behind each phrase that announces an answer, at any distance."""
    lowered = text.lower()
    for statement in _STATEMENTS:
        start = lowered.find(statement)
        position = text.find(letter, start + len(statement)) if start >= 0 else -1
        if position >= 0:
            yield position


def _any_place(text: str, letter: str) -> Iterator[_Place]:
    if letter in text:
        yield 0, text.rfind(letter)
