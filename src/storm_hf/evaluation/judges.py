"""Models that mark the answers which a rule leaves open. By default there is none, and the report notes it.

The tasks are those of the benchmarks' scripts, in our own words: TempCompass (`prompt_templates.py`) has a judge say whether an
answer is correct, and has it answer a multiple-choice question from a caption alone; MMVU (`utils/eval_utils.py`) has it extract
the final answer and compare it. Their judges are gpt-3.5-turbo-1106 and gpt-4o; another one gives other numbers.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from storm_hf.evaluation.scorers import Question, Reading
from storm_hf.evaluation.scorers.strict import without_reasoning


__all__ = ["Judge", "judge_prompt", "judge_readings", "read_verdict"]

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


@dataclass(frozen=True)
class Judge:
    """Model that answers prompts.

    Args:
        name (`str`):
            The model, as reports name it, with its server where it has one.
        ask (`Callable[[str], str]`):
            Gives the answer to a prompt. It raises a `StormError` where none is to be had, and is then asked no more.
        folder (`Path`):
            Folder in which answers are kept, in `judgements.jsonl`: model, prompt and answer on a line, written one by one.

    Example:
        ```python
        chat = ServedChat("http://localhost:8000/v1", "judge")
        judge = Judge(chat.name, lambda prompt: chat.complete([Message(prompt)]), Path("runs/judge"))
        ```
    """

    name: str
    ask: Callable[[str], str]
    folder: Path

    def answer(self, prompt: str) -> str:
        """Answer a prompt, from memory if it was asked before."""
        key = _key(self.name, prompt)
        if key not in self._known:
            self._known[key] = self.ask(prompt)
            self._append({"key": key, "model": self.name, "prompt": prompt, "answer": self._known[key]})
        return self._known[key]

    @cached_property
    def _known(self) -> dict[str, str]:
        return dict(_read_answers(self.folder / "judgements.jsonl"))

    def _append(self, row: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "judgements.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(row)}")  # begins a line, so that one which a kill has torn spoils none
            file.flush()
            os.fsync(file.fileno())


def judge_readings(
    judge: Judge, questions: Sequence[Question], completions: Sequence[str], readings: Sequence[Reading]
) -> list[Reading]:
    """Have the answers judged that a rule left open.

    Args:
        judge ([`Judge`]):
            Judge of the answers.
        questions (`Sequence[Question]`):
            Questions that were asked.
        completions (`Sequence[str]`):
            Answers of the model.
        readings (`Sequence[Reading]`):
            Readings by the rule; those with `correct=None` are for the judge.

    Returns:
        `list[Reading]`: The readings with the judge's marks. One whose verdict says neither stays open.

    Raises:
        StormError: If the judge cannot be reached. What it answered before is kept, and not asked again.
    """
    return [
        reading if reading.correct is not None else _judged(judge, question, completion, reading)
        for question, completion, reading in zip(questions, completions, readings, strict=True)
    ]


def _judged(judge: Judge, question: Question, completion: str, reading: Reading) -> Reading:
    verdict = judge.answer(judge_prompt(question, without_reasoning(completion)))
    is_correct = read_verdict(question, verdict)
    return reading if is_correct is None else replace(reading, correct=is_correct, counted=True)


def _key(name: str, prompt: str) -> str:
    return sha256(f"{name}\0{prompt}".encode()).hexdigest()


def _read_answers(path: Path) -> Iterator[tuple[str, str]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:  # empty, or torn by a kill
            continue
        yield row["key"], row["answer"]
