"""What the steps before the features pass on: one line of JSON per row, kept or refused."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from storm_hf.annotations import Annotation
from storm_hf.pipeline.paths import relative_to
from storm_hf.thought_video import ThoughtVideo


@dataclass(frozen=True, kw_only=True)
class Row:
    """A question on its way to a thought video.

    Args:
        annotation ([`Annotation`]):
            The question. Its video is the one that it was annotated on.
        seed (`int`):
            What its thought video is drawn from.
        prompt (`str`, *optional*, defaults to `""`):
            What the generator is told.
        words (`dict[str, Any]`, *optional*):
            What a simulator knows besides, by the columns of a world; and under `asked` the seed and depth of the episode.
        video (`str`, *optional*, defaults to `""`):
            The clip as models see it, once there is a thought video: relative to the data set if it lies in it.
        thought (`dict[str, Any]`, *optional*):
            The fields of its [`ThoughtVideo`]; the path is relative to the data set.
        frame_size (`tuple[int, int]`, *optional*):
            Height and width of the thought video.
        hash (`str`, *optional*, defaults to `""`):
            The `perceptual_hash` of the thought video, where duplicates are looked for.
        scores (`dict[str, float]`, *optional*):
            What the gates measured with a frozen model. Those of a refused row stand in its reason.
    """

    annotation: Annotation
    seed: int
    prompt: str = ""
    words: dict[str, Any] = field(default_factory=dict)
    video: str = ""
    thought: dict[str, Any] = field(default_factory=dict)
    frame_size: tuple[int, int] | None = None
    hash: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    def thought_video(self, folder: Path) -> ThoughtVideo:
        """The thought video, in its file."""
        return ThoughtVideo(**{**self.thought, "path": folder / self.thought["path"]})


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that ends here.

    Args:
        step (`str`):
            The step that refused it.
        split (`str`):
            Its split.
        source (`str`):
            Name of its collection.
        reason (`str`):
            A kind of few words, a colon, and what happened.
        id (`str`, *optional*):
            Its id, where it has one.
        line (`int`, *optional*):
            Where it stands in its source, where it could not be read.
        timeout_seconds (`float`, *optional*):
            Time that reading its clip had, where that was not enough. A build with more takes the row up again.
    """

    step: str
    split: str
    source: str
    reason: str
    id: str | None = None
    line: int | None = None
    timeout_seconds: float | None = None

    @property
    def kind(self) -> str:
        """What comes before the colon: kinds are counted."""
        return self.reason.partition(":")[0]


Record = Row | Refused
_BEGINNING_OF_ROW = '{"annotation": '  # keys are sorted, and a refused row has no annotation
_THOUGHT_FIELDS = tuple(each.name for each in fields(ThoughtVideo) if each.name not in ("frames", "path"))


def thought_fields(thought: ThoughtVideo, path: str) -> dict[str, Any]:
    """What is recorded of a thought video whose file has this path."""
    return {name: getattr(thought, name) for name in _THOUGHT_FIELDS} | {"path": path}


def write_records(path: Path, records: Iterable[Record], folder: Path) -> None:
    """Write records to a file, which the caller renames once it is complete.

    Args:
        path (`Path`):
            The file.
        records (`Iterable[Record]`):
            Written as they come.
        folder (`Path`):
            The data set: clips that lie in it are named relative to it.
    """
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(_to_json(record, folder), sort_keys=True) + "\n")


def read_records(path: Path, folder: Path) -> Iterator[Record]:
    """Read what `write_records` wrote, one at a time."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield _from_json(json.loads(line), folder)


def read_refused(path: Path) -> Iterator[Refused]:
    """Read the refused rows alone, which takes a fraction of the time."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(_BEGINNING_OF_ROW):
                yield Refused(**json.loads(line))


@dataclass(frozen=True)
class ShardContents:
    """Numbers of a finished shard of records.

    Args:
        num_rows (`int`):
            Rows that go on.
        num_refused (`Mapping[str, int]`):
            From the kind of reason to how many rows ended.
    """

    num_rows: int
    num_refused: Mapping[str, int]


def contents_of(path: Path) -> ShardContents:
    """Count what a finished shard holds; one that was counted before, and has not changed, is not read again."""
    status = path.stat()
    return _contents(path, status.st_mtime_ns, status.st_ino, status.st_size)


@lru_cache(maxsize=2**17)
def _contents(path: Path, mtime_ns: int, inode: int, size: int) -> ShardContents:
    with path.open(encoding="utf-8") as file:
        num_rows = sum(line.startswith(_BEGINNING_OF_ROW) for line in file)
    return ShardContents(num_rows, Counter(refused.kind for refused in read_refused(path)))


def _to_json(record: Record, folder: Path) -> dict[str, Any]:
    content = asdict(record)
    if isinstance(record, Row):
        content["annotation"]["video"] = relative_to(record.annotation.video, folder)
    return content


def _from_json(content: dict[str, Any], folder: Path) -> Record:
    if "annotation" not in content:
        return Refused(**content)
    annotation = Annotation(**content.pop("annotation"))
    row = Row(
        annotation=replace(annotation, video=folder / annotation.video, options=tuple(annotation.options)), **content
    )
    return row if row.frame_size is None else replace(row, frame_size=(row.frame_size[0], row.frame_size[1]))
