"""Video-MME: the letter of one of four options.

`official` is what `evaluation/eval_your_results.py` of the benchmark's repository counts. Its quirks are kept, since published
numbers have them: two of its phrases are glued together for lack of a comma, so "Best option: D" reads as B, from "Best".
`lmms` is what the task `videomme` of lmms-eval 0.7 counts.
"""

import re

from storm_hf.evaluation.scorers.lmms_letter import last_confident_letter
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
    return closed_reading(last_confident_letter(completion, _LETTERS), question)
