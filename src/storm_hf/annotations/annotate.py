"""From a row to its annotations, or to the reason why it is none."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from storm_hf.annotations.clip import ClipFinder
from storm_hf.annotations.evidence import intervals_of, key_frames_of
from storm_hf.annotations.layout import (
    Layout,
    first_of,
    look_up,
    optional_text,
    required,
    seconds_of,
    shown,
    text_of,
    turns_of,
    without_placeholders,
)
from storm_hf.annotations.options import find_answer, parse_options, split_question
from storm_hf.annotations.record import Annotation, Rejection, Row
from storm_hf.errors import DatasetError


_TIMES = ("time_seconds", "start_seconds", "end_seconds")


@dataclass(frozen=True)
class Annotator:
    """Reader of rows by a layout.

    Args:
        layout ([`Layout`]):
            Mapping from a row's fields to an annotation.
        clips ([`ClipFinder`]):
            Finds the clip of a row.
        source (`str`):
            Name of the collection.
        license (`str`):
            Licence of the rows that do not state one.
        reads_evidence (`bool`, *optional*, defaults to `True`):
            Whether chains of thought, intervals and key frames are read.
    """

    layout: Layout
    clips: ClipFinder
    source: str
    license: str
    reads_evidence: bool = True

    def annotate(self, row: Row) -> Iterator[Annotation | Rejection]:
        """Yield the annotations of a row: one, or one for each question of a conversation.

        A question that cannot be used is rejected, and so is a row. The others are kept.
        """
        try:
            self._check_kind(row.content)
            shared = self._shared(row.content)
            turns = self._turns(row.content)
        except DatasetError as error:
            yield self._reject(row, str(error))
            return
        for index, (question, answer) in enumerate(turns):
            suffix = f"-{index}" if len(turns) > 1 else ""
            try:
                yield self._annotation(row.content, question, answer, shared, suffix)
            except DatasetError as error:
                yield self._reject(row, str(error), suffix)

    def name_of(self, row: Mapping[str, Any]) -> str | None:
        """The id of a row that may be no good, where it has one."""
        try:
            return self._row_id(row)
        except DatasetError:
            return None

    def repeated(self, row: Row, annotation: Annotation) -> Rejection:
        """Reject an annotation whose id came before."""
        same = f"the id {annotation.id}" if self._row_id(row.content) else "the same question about the same clip"
        return Rejection(row.line, annotation.id, f"An earlier row has {same}.", row.content, self.source)

    def _check_kind(self, row: Mapping[str, Any]) -> None:
        for path, expected in self.layout.keep.items():
            if (value := look_up(row, path)) != expected:
                raise DatasetError(f"The row has {shown(value)} as {path}, and only {expected!r} is taken.")

    def _shared(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Fields that all questions of a row share."""
        times = {name: seconds_of(first_of(row, self._paths(name)), name) for name in _TIMES}
        start, end = times["start_seconds"], times["end_seconds"]
        if end is not None and end <= (start or 0.0):
            raise DatasetError(f"The part of the clip ends at {end:g} s but begins at {start or 0.0:g} s.")
        stated = optional_text(first_of(row, self._paths("license")), "license")
        shared = {"video": self.clips.find(row), "license": stated or self.license, "source": self.source, **times}
        return shared | self._evidence(row) if self.reads_evidence else shared

    def _evidence(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Evidence for the answer: the chain of thought, intervals and key frames."""
        width, height = (
            look_up(row, size) if isinstance(size, str) else size for size in self.layout.box_size or (1, 1)
        )
        frames = first_of(row, self._paths("key_frames"))
        return {
            "chain_of_thought": self._chain(row),
            "intervals": intervals_of(first_of(row, self._paths("intervals"))),
            "key_frames": key_frames_of(frames, self.layout.key_frame_fps or 1.0, (width, height)),
        }

    def _chain(self, row: Mapping[str, Any]) -> str:
        """The chain of thought of a row; empty where it has none."""
        chains = (look_up(row, path) for path in self._paths("chain_of_thought"))
        texts = [optional_text(chain, "chain of thought") or "" for chain in chains]
        if self.layout.chain_tag is not None:
            texts = [_inside(self.layout.chain_tag, text) or "" for text in texts]
        return next((text.strip() for text in texts if text.strip()), "")

    def _turns(self, row: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        if self.layout.conversation is None:
            question, answer = (required(row, self._paths(name), name) for name in ("question", "answer"))
            return [(question, answer)]
        return turns_of(required(row, [self.layout.conversation], "conversation"))

    def _annotation(
        self, row: Mapping[str, Any], question: object, answer: object, shared: dict[str, Any], suffix: str
    ) -> Annotation:
        question = without_placeholders(question) if self.layout.conversation else question
        text, options = self._question(row, text_of(question, "question"))
        right = find_answer(self._untagged(text_of(answer, "answer")), options, self.layout.answer_form)
        content: dict[str, Any] = {"question": text, "options": tuple(options.values()), "answer": right}
        name = self._row_id(row)
        return Annotation(id=f"{name}{suffix}" if name else self._hash(row, content, shared), **content, **shared)

    def _question(self, row: Mapping[str, Any], text: str) -> tuple[str, dict[str, str]]:
        """The question without what else its text has, and its options."""
        for instruction in self.layout.instructions:
            text = text.removesuffix(instruction).rstrip()
        options = self._options(row)
        if self.layout.options_in_question and not options:
            text, options = split_question(text)
        return text_of(text, "question"), options

    def _options(self, row: Mapping[str, Any]) -> dict[str, str]:
        stated = [first_of(row, [path]) for path in self.layout.option_fields]
        value = stated or first_of(row, self._paths("options"))
        return parse_options(value, self.layout.option_separator)

    def _untagged(self, answer: str) -> str:
        tag = self.layout.answer_tag
        if tag is None:
            return answer
        inside = _inside(tag, answer)
        if inside is None:
            raise DatasetError(f"The answer has no <{tag}>...</{tag}>.")
        return text_of(inside, "answer")

    def _row_id(self, row: Mapping[str, Any]) -> str | None:
        return optional_text(first_of(row, self._paths("id")), "id")

    def _hash(self, row: Mapping[str, Any], content: dict[str, Any], shared: dict[str, Any]) -> str:
        """A name that depends on what is asked about which clip, not on where the row or the clips lie."""
        known = {**content, "video": self.clips.stated(row), **{name: shared[name] for name in _TIMES}}
        return sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def _reject(self, row: Row, reason: str, suffix: str = "") -> Rejection:
        name = self.name_of(row.content)
        return Rejection(row.line, f"{name}{suffix}" if name else None, reason, row.content, self.source)

    def _paths(self, name: str) -> tuple[str, ...]:
        return self.layout.fields.get(name, ())


def _inside(tag: str, text: str) -> str | None:
    """The text between a tag and its end; None where it is not there."""
    match = re.search(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", text, re.DOTALL)
    return match[1] if match else None
