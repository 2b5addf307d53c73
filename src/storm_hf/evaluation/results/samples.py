"""Questions and answers of an lmms-eval 0.7 run: its files `*_samples_<task>.jsonl`, one line per question."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_hf.errors import DatasetError
from storm_hf.evaluation.results.documents import read_document
from storm_hf.evaluation.scorers import Question


@dataclass(frozen=True)
class Sample:
    """A question and what a model answered.

    Args:
        task (`str`):
            Task of lmms-eval.
        number (`int`):
            Position of the question in its data set.
        question ([`~storm_hf.evaluation.scorers.Question`]):
            Question that was asked.
        completion (`str`):
            The whole answer, reasoning included.
        cost (`Mapping[str, float]`, *optional*):
            Logged values of `output_tokens`, `forward_passes` and `seconds`.
    """

    task: str
    number: int
    question: Question
    completion: str
    cost: Mapping[str, float]

    @property
    def key(self) -> tuple[str, int]:
        """Key that identifies the same question in another arm."""
        return self.task, self.number


_COSTS = ("output_tokens", "forward_passes", "seconds")


def read_samples(run: Path) -> dict[str, dict[str, list[Sample]]]:
    """Read the samples of a run.

    Args:
        run (`Path`):
            Its folder, with a folder for each arm in which files `*_samples_<task>.jsonl` lie at any depth. Of two files about
            one task, the one whose name sorts last counts: lmms-eval begins it with the date.

    Returns:
        `dict`: From arm to task to samples, in the order of the questions.

    Raises:
        DatasetError: If there are none, or a line is no sample with its document.
    """
    found: dict[str, dict[str, list[Sample]]] = {}
    for path in sorted(run.glob("*/**/*_samples_*.jsonl"), key=lambda path: path.name):
        arm, task = path.relative_to(run).parts[0], path.stem.partition("_samples_")[2]
        found.setdefault(arm, {})[task] = _read_file(path, task)
    if not found:
        raise DatasetError(
            f"Expected files ARM/*_samples_TASK.jsonl in {run} but there are none. Run `storm evaluate` first."
        )
    return {arm: dict(sorted(found[arm].items())) for arm in sorted(found)}


def _read_file(path: Path, task: str) -> list[Sample]:
    lines = path.read_text(encoding="utf-8").split("\n")
    samples = [_read_line(line, path, task) for line in lines if line]
    return sorted(samples, key=lambda sample: sample.number)


def _read_line(line: str, path: Path, task: str) -> Sample:
    try:
        row = json.loads(line)
        document, number, completion = row["doc"], int(row["doc_id"]), _completion(row)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} has a line that is no sample with its document ({error}). lmms-eval itself leaves documents out of its files; "
            "run `storm evaluate`, which keeps them."
        ) from error
    return Sample(task, number, read_document(task, document), completion, _cost(row))


def _completion(row: Mapping[str, Any]) -> str:
    """The answer as generated; `resps` is left out where cutting reasoning changed nothing."""
    answer = row.get("resps") or row["filtered_resps"]
    while isinstance(answer, list):
        answer = answer[0]
    return str(answer)


def _cost(row: Mapping[str, Any]) -> dict[str, float]:
    counts: Iterable[Any] = row.get("token_counts") or []
    logged = next((count for count in counts if isinstance(count, dict)), {})
    return {name: float(logged[name]) for name in _COSTS if logged.get(name) is not None}
