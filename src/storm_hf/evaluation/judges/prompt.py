"""Prompts for a judge, and the parser of its verdicts.

The tasks are those of the benchmarks' scripts, in our own words: TempCompass (`prompt_templates.py`) has a judge say whether an
answer is correct, and has it answer a multiple-choice question from a caption alone; MMVU (`utils/eval_utils.py`) has it extract
the final answer and compare it. Their judges are gpt-3.5-turbo-1106 and gpt-4o; another one gives other numbers.
"""

import re

from storm_hf.evaluation.scorers import Question


_COMPARE = """A model was asked a question about a video. Compare its answer with the right one.
Find the final answer in what the model says, and judge that alone; spelling and form do not matter.{rule}
Reply with the single word Correct or Incorrect.

Question: {question}
Right answer: {answer}
The model says: {completion}"""
_OPEN_RULE = """
It is correct only if it means exactly the right answer: the same concept, technique or quantity with the same unit. An answer that
is partly right, or adds something wrong, is incorrect."""
_ANSWER_FROM_CAPTION = """Somebody described a video. Answer the question from this description alone, without guessing.
Reply with one line, `Answer:` and the option with its letter. If the description does not decide it, or no option agrees with it,
reply `Answer: none`.

Description: {completion}
Question: {question}"""
_VERDICT = re.compile(r"\b(?:(in)correct|(not) correct|correct)\b", re.IGNORECASE)
_ANSWER_LINE = re.compile(r"answer\s*:\s*(.*)", re.IGNORECASE)


def judge_prompt(question: Question, completion: str) -> str:
    """Write what a judge is asked about an answer.

    Args:
        question ([`~storm_hf.evaluation.scorers.Question`]):
            Question to the model.
        completion (`str`):
            Answer of the model, without reasoning.
    """
    if question.kind == "captioning":
        return _ANSWER_FROM_CAPTION.format(completion=completion, question=_with_options(question))
    answer = _labelled(question, question.answer) if question.options else question.answer
    rule = _OPEN_RULE if question.kind == "open-ended" else ""
    return _COMPARE.format(rule=rule, question=_with_options(question), answer=answer, completion=completion)


def read_verdict(question: Question, verdict: str) -> bool | None:
    """Parse a judge's verdict; `None` if it is neither.

    Args:
        question ([`~storm_hf.evaluation.scorers.Question`]):
            Question of the verdict.
        verdict (`str`):
            The judge's answer.
    """
    return _right_option(question, verdict) if question.kind == "captioning" else _is_correct(verdict)


def _is_correct(verdict: str) -> bool | None:
    match = _VERDICT.search(verdict)
    return None if match is None else not (match[1] or match[2])


def _right_option(question: Question, verdict: str) -> bool | None:
    """Return True if the last line with an answer gives the letter of the correct option; a line without a letter decides for no option."""
    lines = _ANSWER_LINE.findall(verdict)
    if not lines:
        return None
    said = lines[-1].strip().strip("`*() ")
    return any(
        re.match(rf"{re.escape(label)}(?:\W|$)", said) for label in question.option_labels if label == question.answer
    )


def _with_options(question: Question) -> str:
    return "\n".join([question.text, *(_labelled(question, label) for label in question.option_labels)])


def _labelled(question: Question, label: str) -> str:
    return f"{label}: {dict(zip(question.option_labels, question.options, strict=True))[label]}"
