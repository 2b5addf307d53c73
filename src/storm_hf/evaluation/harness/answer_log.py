"""Answers on disk, one line each, written after every batch. lmms-eval's own cache is written at the end of a task.

A killed run leaves whole lines and at most one torn one, which is asked again.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from storm_hf.errors import DatasetError


@dataclass(frozen=True)
class LoggedAnswer:
    """One answer and what it cost.

    Args:
        text (`str`):
            The whole answer, reasoning included, without special tokens.
        input_tokens (`int`):
            Tokens of the prompt, those of the video included, padding not.
        output_tokens (`int`):
            Generated tokens, the end of the turn included.
        reasoning_tokens (`int`):
            Number of tokens up to `</think>`.
        num_latents (`int`):
            Latent steps K.
        latents (`str`):
            Latents that were fed; `own` are the model's.
        latent_norms (`list[float]`):
            Euclidean length of each of the model's latents.
        forward_passes (`int`):
            Calls of the language model for this answer, prefill included.
        seconds (`float`):
            Wall time of its batch, divided by the size of the batch.
        truncated (`bool`):
            Whether the answer ended at its longest and not at its end.
    """

    text: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    num_latents: int
    latents: str
    latent_norms: list[float]
    forward_passes: int
    seconds: float
    truncated: bool

    def counts(self) -> dict[str, Any]:
        """Everything but the text, as it stands in the samples."""
        return {name: value for name, value in asdict(self).items() if name != "text"}


def question_key(
    task: str, doc_id: int, context: str, generation: Mapping[str, Any], identity: Mapping[str, Any]
) -> str:
    """Hash what an answer depends on.

    Args:
        task (`str`):
            Name of the task.
        doc_id (`int`):
            Position of the question in its data set.
        context (`str`):
            The text of the question.
        generation (`Mapping`):
            Generation settings of the task.
        identity (`Mapping`):
            The settings of the model on which answers depend.
    """
    parts = [task, doc_id, context, dict(generation), dict(identity)]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class AnswerLog:
    """The answers that a folder holds.

    Args:
        folder (`Path`):
            The folder; it need not exist yet.
        rank (`int`, *optional*, defaults to `0`):
            Each process of a run writes a file of its own, and reads them all.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.path = folder / f"answers-{rank}.jsonl"
        self._known = dict(_read_lines(sorted(folder.glob("answers-*.jsonl"))))

    def get(self, key: str) -> LoggedAnswer | None:
        """The answer to a question, if it has been given."""
        return self._known.get(key)

    def add(self, answers: Mapping[str, LoggedAnswer]) -> None:
        """Append answers by their keys; they are on the disk when this returns."""
        self._known.update(answers)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell() and not _ends_in_newline(file):
                file.write(b"\n")  # of a line that a kill has torn
            for key, answer in answers.items():
                file.write((json.dumps({"key": key, **asdict(answer)}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_in_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _read_lines(paths: Iterable[Path]) -> Iterable[tuple[str, LoggedAnswer]]:
    for path in paths:
        for line in path.read_bytes().splitlines():
            try:
                content = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            try:
                yield content.pop("key"), LoggedAnswer(**content)
            except (AttributeError, KeyError, TypeError) as error:
                raise DatasetError(
                    f"{path} holds a line that is no answer of this version. Remove the file, or choose another folder."
                ) from error
