"""Records passed between the steps before the features: one line of JSON per row, kept or rejected."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from storm_hf.annotations import Annotation
from storm_hf.builder.progress import Refused
from storm_hf.pipeline.paths import relative_to
from storm_hf.thought_video import ThoughtVideo


DUPLICATE = "duplicate"  # kind of a row that is rejected because another one has the same thought video


@dataclass(frozen=True, kw_only=True)
class Row:
    """A question on its way to a thought video.

    Args:
        annotation ([`Annotation`]):
            The question. Its video is the one that it was annotated on.
        seed (`int`):
            Seed of its thought video.
        prompt (`str`, *optional*, defaults to `""`):
            Prompt of the generator.
        words (`dict[str, Any]`, *optional*):
            Further columns from a simulator, as in a world's data set; and under `asked` the seed and depth of the episode.
        video (`str`, *optional*, defaults to `""`):
            The clip as models see it, once there is a thought video: relative to the data set if it lies in it.
        thought (`dict[str, Any]`, *optional*):
            The fields of its [`ThoughtVideo`]; the path is relative to the data set.
        frame_size (`tuple[int, int]`, *optional*):
            Height and width of the thought video.
        hash (`str`, *optional*, defaults to `""`):
            The `perceptual_hash` of the thought video, where duplicates are looked for.
        scores (`dict[str, float]`, *optional*):
            Scores that the gates measured with a frozen model. Those of a rejected row stand in its reason.
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


Record = Row | Refused
_THOUGHT_FIELDS = tuple(each.name for each in fields(ThoughtVideo) if each.name not in ("frames", "path"))


def thought_fields(thought: ThoughtVideo, path: str) -> dict[str, Any]:
    """Fields recorded of a thought video whose file has this path."""
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
