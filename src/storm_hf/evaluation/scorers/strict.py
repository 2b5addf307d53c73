"""Strict answer parser for all benchmarks: an unclear answer is unreadable.

The English article "A" is never the option A, a letter within a word is no letter, and an answer that names two options names
none. What cannot be read is wrong, and counted on its own. Only captions need a judge.

Written reasoning is cut out before any scorer reads. The cut is that of lmms-eval 0.7 (`api/reasoning.py`), so that all scorers see what the harness scored. It looks at the case of
letters, leaves a block without an end alone, and keeps what follows an end without a beginning.
"""

import re

from storm_hf.evaluation.scorers.option import ANSWER_IS, answer_alone, plain, read_labelled
from storm_hf.evaluation.scorers.question import Question, Reading, closed_reading


_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d+(?:\.\d+)?")
_YES_OR_NO = re.compile(r"\W*(yes|no)\b(?!\W*(?:or|and|/)\W*(?:yes|no)\b)", re.IGNORECASE)


def read_strict(question: Question, completion: str) -> Reading:
    """Read an answer of any benchmark."""
    said = answer_alone(completion)
    if question.kind == "captioning":
        return Reading(None, None, readable=bool(said), counted=False)
    if question.kind == "open-ended":
        return Reading(said or None, bool(said) and _same_answer(question.answer, said), readable=bool(said))
    choice = _yes_or_no(said) if question.kind == "yes_no" else _named_option(question, said)
    return closed_reading(choice, question)


def _yes_or_no(said: str) -> str | None:
    """The one of both words that an answer begins with, or announces; none where it begins with both."""
    match = _YES_OR_NO.match(ANSWER_IS.sub("", said, count=1))
    return match[1].lower() if match else None


def _named_option(question: Question, said: str) -> str | None:
    """The label of the one option that an answer names."""
    place = read_labelled(said, question.options, question.option_labels)
    return None if place is None else question.option_labels[place]


def _same_answer(expected: str, said: str) -> bool:
    """Compare an open answer with the expected one word for word, numbers written in any form.

    A lower bound: a paraphrase is wrong here, and only a judge can say otherwise.
    """
    return plain(_with_plain_numbers(ANSWER_IS.sub("", said, count=1))) == plain(_with_plain_numbers(expected))


def _with_plain_numbers(text: str) -> str:
    """Write numbers one way: `1,000.0` and `1000` are the same."""
    return _NUMBER.sub(lambda match: f"{float(match[0].replace(',', '')):.12g}", text)


_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


def without_reasoning(completion: str) -> str:
    """Cut reasoning blocks out of a completion, and the white space around what is left."""
    for start, end in _TAGS:
        completion = _without_blocks(completion, start, end)
        if end in completion and start not in completion:
            completion = completion.rpartition(end)[2]
    return completion.strip()


def _without_blocks(text: str, start: str, end: str) -> str:
    while start in text:
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            break
        text = before + after
    return text
