"""TempCompass: four ways of asking about the same clips.

`official` is the rules of the benchmark's scripts (`eval_multi-choice.py`, `eval_yes_no.py`, `eval_caption_matching.py`); what they
do not match goes to a judge, and captions always do. `lmms` is the same rules in lmms-eval 0.7, which leaves `</s>` in the answer.
"""

from collections.abc import Callable

from storm_hf.evaluation.scorers.question import Question, Reading


_LETTERS = ("A", "B", "C", "D")
_FOR_THE_JUDGE = Reading(None, None, readable=False)


def read_official(question: Question, completion: str) -> Reading:
    """Apply the rule of the question's kind to the answer, without its end-of-text mark."""
    return read_lmms(question, completion.replace("</s>", "").strip())


def read_lmms(question: Question, completion: str) -> Reading:
    """Apply the rule of the question's kind to the answer as it is."""
    if question.kind == "captioning":
        return Reading(None, None, readable=bool(completion), counted=False)
    choice = _RULES[question.kind](question, completion)
    return _FOR_THE_JUDGE if choice is None else Reading(choice, choice == question.answer, readable=True)


def _chosen_letter(question: Question, completion: str) -> str | None:
    """The letter alone, or the first letter in front of a period or a parenthesis."""
    return completion[:1] if completion[:1] in _LETTERS and completion[1:2] in ("", ".", ")") else None


def _yes_or_no(question: Question, completion: str) -> str | None:
    """First word of the answer, so that "Not sure" and "Nothing" are not read as "no"."""
    return next((word for word in ("yes", "no") if completion.lower().startswith(word)), None)


def _matching_caption(question: Question, completion: str) -> str | None:
    """The option whose line, text or label the answer is. A label goes before a text, a text before a line."""
    labels, texts = question.option_labels, question.options
    by_label = [label for label in labels if {completion, completion.replace(".", "")} & {label, label.split()[-1]}]
    by_text = [label for label, text in zip(labels, texts, strict=True) if _caption(text) in _captions_in(completion)]
    by_line = [label for label, text in zip(labels, texts, strict=True) if completion == f"{label}: {text}"]
    named = by_label or by_text or by_line
    return question.answer if question.answer in named else next(reversed(named), None)


def _caption(text: str) -> str:
    """A caption as far as the rule looks at it: up to a colon."""
    return text.partition(": ")[0]


def _captions_in(completion: str) -> tuple[str, ...]:
    """An answer, and what stands between its first parenthesis and a second one, as in `1) A cat sleeps.`"""
    parts = completion.split(") ")
    return (completion, *parts[1:2])


_RULES: dict[str, Callable[[Question, str], str | None]] = {
    "multiple-choice": _chosen_letter,
    "yes_no": _yes_or_no,
    "caption_matching": _matching_caption,
}
