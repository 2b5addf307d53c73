"""MVBench: one of two to five options.

`official` is `check_ans` of the benchmark's notebook (Ask-Anything, video_chat2), read from the first line of the answer. The
notebook also begins the answer itself, with "Best option:("; whether the parenthesis is put back makes no difference to the rule.
It tests whether one piece of text lies within another, so an empty answer counts as correct, and so does "a", which lies in "(a)".
`lmms` is what the tasks `mvbench_*` of lmms-eval 0.7 count.
"""

import re

from storm_hf.evaluation.scorers.question import Question, Reading, closed_reading


_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = int(re.UNICODE)  # lmms-eval passes this flag where the number of replacements stands: 32
_LABELLED = re.compile(r"([A-E])\.\s*.+", re.IGNORECASE)
_LETTER = re.compile(r"\b[A-E]\b", re.IGNORECASE)


def read_official(question: Question, completion: str) -> Reading:
    """Compare the first word of the answer with "(b)". An empty answer counts as correct, whatever the question."""
    word = completion.strip().partition("\n")[0].lower().split(" ")[0]
    fitting = [label for label in question.option_labels if _fits(word, f"({label.lower()})")]
    is_correct = question.answer in fitting
    if not any(character.isalnum() for character in word):  # nothing to read: it fits each option, or none
        return Reading(None, is_correct, readable=False)
    choice = question.answer if is_correct else next(iter(fitting), None)
    return Reading(choice, is_correct, readable=choice is not None)


def _fits(word: str, option: str) -> bool:
    return word.replace(".", "") in option or option in word


def read_lmms(question: Question, completion: str) -> Reading:
    """Take the first letter that stands alone, in any case: "a man" reads as A. An empty answer leaves the denominator."""
    if not completion:
        return Reading(None, False, readable=False, counted=False)
    return closed_reading(_lone_letter(completion), question)


def _lone_letter(text: str) -> str | None:
    if match := _LABELLED.fullmatch(text.strip()):
        return match[1].upper()
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    letter = _LETTER.search(text)
    return letter[0].upper() if letter else None


def _without_punctuation(text: str) -> str:
    """Remove a mark that stands beside a space, in any place, and make every other mark a space."""
    removes_all = _DIGITS_WITH_COMMA.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        is_removed = removes_all or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if is_removed else " ")
    return _PERIOD.sub("", cleaned, count=_PERIODS_REMOVED)
