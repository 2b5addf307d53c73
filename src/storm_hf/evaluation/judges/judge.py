"""A judge with a memory: it is asked each question once, and what it answered lies on the disk, with the prompt."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from storm_hf.evaluation.judges.prompt import judge_prompt, read_verdict
from storm_hf.evaluation.scorers import Question, Reading
from storm_hf.evaluation.scorers.reasoning import without_reasoning


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
