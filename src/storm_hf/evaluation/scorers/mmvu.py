"""MMVU: five options, or an open answer of a few words.

`official` has no rule: a judge (GPT-4o in the paper) reads both kinds (`utils/eval_utils.py` of the benchmark's repository). `lmms`
is what the task `mmvu_val` of lmms-eval 0.7 counts: lenient rules first, a judge only where an open answer misses them.
"""

import re
from string import punctuation

from storm_hf.evaluation.scorers.question import Question, Reading


_LETTER = re.compile(r"\b[A-E]\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+\.?\d*")
_GROWTH = re.compile(r"o\s*\([^)]+\)")  # O(n^2), lowered
_SUPERSCRIPTS = str.maketrans({power: f"^{digit}" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})
_TOLERANCE = 0.01
_SHORT_WORD = 2


def read_official(question: Question, completion: str) -> Reading:
    """Leave everything to the judge."""
    return Reading(None, None, readable=bool(completion), counted=False)


def read_lmms(question: Question, completion: str) -> Reading:
    """Call an answer right if any of the lenient rules does. An open answer that misses them is for the judge."""
    completion = completion.strip()
    if question.kind == "open-ended":
        is_correct = _agrees(question.answer.strip(), completion)
        return Reading(completion, is_correct or None, readable=bool(completion))
    letter = _LETTER.search(completion)
    is_correct = _names(question, completion)
    choice = question.answer if is_correct else letter and letter[0].upper()
    return Reading(choice, is_correct, readable=choice is not None)


def _names(question: Question, completion: str) -> bool:
    """Match the correct letter alone anywhere, the correct option's text, or that letter and one of its words."""
    letter, text, said = question.answer, question.answer_text.strip().lower(), completion.lower()
    if re.search(rf"\b{re.escape(letter)}\b", completion, re.IGNORECASE) or text in said:
        return True
    words = [word.strip(punctuation) for word in text.split()]
    return letter.lower() in said and any(word in said for word in words if len(word) > _SHORT_WORD)


def _agrees(expected: str, said: str) -> bool:
    """Match if one text contains the other, their first numbers are equal, or all words of a short one occur.

    An empty answer lies within every text, and counts as correct.
    """
    expected, said = _plain(expected), _plain(said)
    return (
        expected in said
        or said in expected
        or _same_number(expected, said)
        or _same_words(expected, said)
        or _same_growth(expected, said)
    )


def _plain(text: str) -> str:
    return " ".join(text.lower().translate(_SUPERSCRIPTS).split())


def _same_number(expected: str, said: str) -> bool:
    first, second = _NUMBER.search(expected), _NUMBER.search(said)
    return first is not None and second is not None and abs(float(first[0]) - float(second[0])) < _TOLERANCE


def _same_words(expected: str, said: str) -> bool:
    words = [word.strip(punctuation) for word in expected.split() if word.strip(punctuation)]
    known = {word.strip(punctuation) for word in said.split()}
    return 2 <= len(words) <= 5 and all(word in known for word in words if len(word) > _SHORT_WORD)


def _same_growth(expected: str, said: str) -> bool:
    first, second = _GROWTH.search(expected), _GROWTH.search(said)
    return first is not None and second is not None and first[0] == second[0]
