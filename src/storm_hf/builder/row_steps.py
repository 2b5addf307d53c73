"""Steps of one row: write its prompt, make its thought video and cut its clip, or reject it with a reason."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from storm_hf.annotations import Annotation, Box, KeyFrame
from storm_hf.annotations.record import EVIDENCE
from storm_hf.builder.progress import PROMPTS, THOUGHTS, Refused, split_of
from storm_hf.errors import DatasetError, VideoReadError, VideoWriteError
from storm_hf.pipeline.paths import relative_to
from storm_hf.thought_video import (
    Gate,
    PromptWriter,
    Rejected,
    ThoughtVideo,
    ThoughtVideoGenerator,
    assess,
    file_stem,
    perceptual_hash,
    question_clip,
)
from storm_hf.thought_video.clip_part import cropped_to
from storm_hf.thought_video.generator import ClipWriter
from storm_hf.video import read_video, write_video


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


def _thought_fields(thought: ThoughtVideo, path: str) -> dict[str, Any]:
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
        annotation = content["annotation"]
        annotation["video"] = relative_to(record.annotation.video, folder)
        content["annotation"] = {name: value for name, value in annotation.items() if value or name not in EVIDENCE}
    return content


def _from_json(content: dict[str, Any], folder: Path) -> Record:
    if "annotation" not in content:
        return Refused(**content)
    row = Row(annotation=_annotation_of(content.pop("annotation"), folder), **content)
    return row if row.frame_size is None else replace(row, frame_size=(row.frame_size[0], row.frame_size[1]))


def _annotation_of(content: dict[str, Any], folder: Path) -> Annotation:
    frames = [
        KeyFrame(seconds=frame["seconds"], boxes=tuple(Box(**box) for box in frame["boxes"]))
        for frame in content.pop("key_frames", ())
    ]
    return Annotation(
        **{
            **content,
            "video": folder / content["video"],
            "options": tuple(content["options"]),
            "intervals": tuple((start, end) for start, end in content.get("intervals", ())),
            "key_frames": tuple(frames),
        }
    )


_NUM_PROBED = 8  # frames of a question's clip that must be readable


def refuse(row: Row, step: str, split: str, rejected: Rejected) -> Refused:
    """End a row, in one line."""
    return Refused(
        step=step,
        split=split,
        source=row.annotation.source,
        reason=" ".join(rejected.reason.split()),
        id=row.annotation.id,
        timeout_seconds=rejected.timeout_seconds,
    )


@dataclass(frozen=True)
class PromptStep:
    """Writes the prompts of rows, and the clips of a world or of parts of films.

    Args:
        writer ([`PromptWriter`]):
            Writes prompts.
        clip_writer ([`ClipWriter`], *optional*):
            Writes clips, where questions are made together with them.
    """

    writer: PromptWriter
    clip_writer: ClipWriter | None = None

    def __call__(self, row: Row, shard: str) -> Record:
        """Write one prompt, and the clip if there is none, or refuse the row."""
        if self.clip_writer is not None:
            rejected = self.clip_writer.write_clip(row.annotation, row.seed)
            if rejected is not None:
                return refuse(row, PROMPTS, split_of(shard), rejected)
        try:
            return replace(row, prompt=self.writer.write(row.annotation))
        except VideoReadError as error:
            return refuse(row, PROMPTS, split_of(shard), Rejected.of(error))
        except DatasetError as error:
            return refuse(row, PROMPTS, split_of(shard), Rejected(f"no prompt: {error}"))


@dataclass(frozen=True)
class ThoughtStep:
    """Makes thought videos, judges them, and cuts or copies the clips of their questions.

    Args:
        folder (`Path`):
            The data set.
        generator ([`ThoughtVideoGenerator`]):
            Makes them.
        gates (`Sequence[Gate]`):
            Judge them.
        frame_size (`tuple[int, int]`, *optional*):
            Height and width that they are scaled and cropped to.
        copies (`bool`, *optional*, defaults to `False`):
            Whether clips are copied into the data set.
        is_hashed (`bool`, *optional*, defaults to `False`):
            Whether duplicates will be looked for.
    """

    folder: Path
    generator: ThoughtVideoGenerator
    gates: Sequence[Gate] = ()
    frame_size: tuple[int, int] | None = None
    copies: bool = False
    is_hashed: bool = False

    def __call__(self, row: Row, shard: str) -> Record:
        """Make one thought video, or refuse the row; nothing of a refused row stays."""
        outcome = self._make(row, shard)
        if isinstance(outcome, Row):
            return outcome
        self._thought_path(row, shard).unlink(missing_ok=True)
        return refuse(row, THOUGHTS, split_of(shard), outcome)

    def folders(self, shard: str) -> list[Path]:
        """Folders of the videos of a shard. They are emptied before a shard is made again."""
        return [self.folder / "videos" / kind / shard for kind in ("thoughts", "clips")]

    def _make(self, row: Row, shard: str) -> Row | Rejected:
        try:
            made = self.generator.generate(row.annotation, prompt=row.prompt, seed=row.seed)
            if isinstance(made, Rejected):
                return made
            thought = self._written(made, self._thought_path(row, shard))
            frames = thought.read()
            loaded = replace(thought, path=None, frames=frames)
            assessed = assess(self.gates, row.annotation, loaded)
            if assessed.reason is not None:
                return Rejected(assessed.reason, assessed.timeout_seconds)
            clip = self._clip(row.annotation, thought, self.folders(shard)[1])
        except VideoReadError as error:
            return Rejected.of(error)
        except VideoWriteError as error:
            return Rejected(f"unwritable: {error}")
        thought = replace(thought, seen_from_seconds=row.annotation.start_seconds or 0.0)
        return replace(
            row,
            video=relative_to(clip, self.folder),
            thought=_thought_fields(thought, relative_to(self._thought_path(row, shard), self.folder)),
            frame_size=(frames.shape[1], frames.shape[2]),
            hash=perceptual_hash(frames) if self.is_hashed else "",
            scores=dict(assessed.scores),
        )

    def _thought_path(self, row: Row, shard: str) -> Path:
        return self.folders(shard)[0] / f"{file_stem(row.annotation.id)}.mp4"

    def _written(self, thought: ThoughtVideo, path: Path) -> ThoughtVideo:
        """Write the thought video to its file: training reads what a decoder gives."""
        frames = thought.read()
        if self.frame_size is not None:
            frames = np.stack([cropped_to(frame, *self.frame_size) for frame in frames])
        write_video(path, frames, fps=thought.fps)
        return replace(thought, frames=None, path=path)

    def _clip(self, annotation: Annotation, thought: ThoughtVideo, folder: Path) -> Path:
        """The clip that a question may be asked about, once it was seen to be readable."""
        clip = question_clip(annotation, thought, folder)
        read_video(clip, num_frames=_NUM_PROBED)
        if not self.copies or clip.is_relative_to(self.folder):
            return clip
        copy = folder / f"{file_stem(annotation.id)}{clip.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(clip, copy))
