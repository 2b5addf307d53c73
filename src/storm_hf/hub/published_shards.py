"""Shards as they are published: features with references, and beside them the clips that may be passed on.

data/train-00000-of-00008.parquet      every row, no video: the configuration `features`
videos/train-00000-of-00008.parquet    the rows with videos, their bytes inside: the configuration `videos`

The same shard gives the same bytes, so that it is uploaded once.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from storm_hf.errors import DatasetError
from storm_hf.hub.dataset_folder import ClipOrigin, DatasetFolder
from storm_hf.hub.licenses import LicenseRule
from storm_hf.hub.refusals import check_texts, last_name
from storm_hf.optional import require


VIDEOS = "videos"
CLIP_COLUMNS = ("clip_source", "clip_license", "clip_file")
_WORDS = ("id", "question", "options", "answer")
_ROWS_PER_GROUP = 16  # rows whose videos are in memory at a time
_FOREIGN = "videos/clips"  # where a clip is said to lie that lies outside the data set


@dataclass(frozen=True)
class ShardPlan:
    """What is published of each row of a shard.

    Args:
        table (`Any`):
            The [`~pyarrow.Table`] as it was built.
        origins (`list[ClipOrigin]`):
            Of the clip of each row.
        clips (`list[Path | None]`):
            The clip of each row, or None where it is withheld.
        thoughts (`list[Path | None]`):
            The thought video of each row, likewise.
    """

    table: Any
    origins: list[ClipOrigin]
    clips: list[Path | None]
    thoughts: list[Path | None]

    @property
    def withheld(self) -> Counter[str]:
        """How many clips of each licence are not published."""
        pairs = zip(self.origins, self.clips, strict=True)
        return Counter(origin.license for origin, clip in pairs if clip is None)


def plan_shard(folder: DatasetFolder, shard: Path, rule: LicenseRule, *, embeds: bool) -> ShardPlan:
    """Decide row by row which videos are published. A thought video needs the permission of its clip's licence too.

    Args:
        folder ([`DatasetFolder`]):
            The data set.
        shard (`Path`):
            One of its shards.
        rule ([`LicenseRule`]):
            Decides.
        embeds (`bool`):
            Whether any videos are published at all.
    """
    table = require("pyarrow.parquet").read_table(shard)
    column = {name: table[name].to_pylist() for name in ("id", "video", "thought_video", "license")}
    origins = [folder.origin(*each) for each in zip(column["id"], column["license"], strict=True)]
    clips: list[Path | None] = []
    thoughts: list[Path | None] = []
    for origin, clip, thought, of_thought in zip(
        origins, column["video"], column["thought_video"], column["license"], strict=True
    ):
        may_clip = embeds and rule.permits(origin.license)
        clips.append(_found(folder, clip) if may_clip and clip else None)
        thoughts.append(_found(folder, thought) if may_clip and thought and rule.permits(of_thought) else None)
    return ShardPlan(table, origins, clips, thoughts)


def write_features(plan: ShardPlan, folder: DatasetFolder, path: Path) -> None:
    """Write the rows of a shard without any video, with the licence and the name of each row's clip.

    Raises:
        DatasetError: If a text holds a credential or a path of this machine.
    """
    pyarrow = require("pyarrow")
    features = require("datasets").Features.from_arrow_schema(plan.table.schema)
    table = plan.table
    replaced = {
        "video": [_name(folder, clip) for clip in plan.clips],
        "thought_video": [_name(folder, thought) for thought in plan.thoughts],
        "encoder": [last_name(name) for name in table["encoder"].to_pylist()],
    }
    for name, values in replaced.items():
        table = table.set_column(table.column_names.index(name), name, pyarrow.array(values, pyarrow.string()))
    for name in CLIP_COLUMNS:
        values = [getattr(origin, name.removeprefix("clip_")) for origin in plan.origins]
        table = table.append_column(name, pyarrow.array(values, pyarrow.string()))
        features[name] = require("datasets").Value("string")
    for name in table.column_names:
        if pyarrow.types.is_string(table.schema.field(name).type):
            check_texts(table[name].to_pylist(), f"the column {name} of {path.name}")
    metadata = features.arrow_schema.metadata
    require("pyarrow.parquet").write_table(table.replace_schema_metadata(metadata), path)


def write_videos(plan: ShardPlan, folder: DatasetFolder, path: Path) -> int:
    """Write the rows of a shard that have videos to publish, with the bytes of these.

    Returns:
        `int`: How many rows that are. Where there is none, there is no file.
    """
    numbers = [
        number
        for number, videos in enumerate(zip(plan.clips, plan.thoughts, strict=True))
        if any(video is not None for video in videos)
    ]
    if not numbers:
        return 0
    schema = _video_features().arrow_schema
    with require("pyarrow.parquet").ParquetWriter(path, schema, compression="none") as writer:
        for group in _groups(numbers):
            rows = [_video_row(plan, folder, number) for number in group]
            writer.write_table(require("pyarrow").Table.from_pylist(rows, schema=schema))
    return len(numbers)


def _video_features() -> Any:
    datasets = require("datasets")
    text, video = datasets.Value("string"), datasets.Video(decode=False)
    words = {name: datasets.List(text) if name == "options" else text for name in _WORDS}
    return datasets.Features({**words, "video": video, "thought_video": video, "clip_license": text, "license": text})


def _video_row(plan: ShardPlan, folder: DatasetFolder, number: int) -> dict[str, Any]:
    row = {name: plan.table[name][number].as_py() for name in (*_WORDS, "license")}
    videos = {"video": plan.clips[number], "thought_video": plan.thoughts[number]}
    embedded = {
        name: None if path is None else {"bytes": path.read_bytes(), "path": _name(folder, path)}
        for name, path in videos.items()
    }
    return {**row, **embedded, "clip_license": plan.origins[number].license}


def _groups(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), _ROWS_PER_GROUP):
        yield numbers[start : start + _ROWS_PER_GROUP]


def _found(folder: DatasetFolder, name: str) -> Path:
    path = folder.path / name
    if not path.is_file():
        raise DatasetError(
            f"Expected the video {name}, which a row names, but it is not there. Restore it, or publish without videos: "
            "--reference."
        )
    return path


def _name(folder: DatasetFolder, path: Path | None) -> str | None:
    """What a video is called in the published data set: never by a path of this machine."""
    if path is None:
        return None
    if path.is_relative_to(folder.path):
        return path.relative_to(folder.path).as_posix()
    place = sha256(str(path.parent).encode()).hexdigest()[:8]  # clips of two folders may have one name
    return f"{_FOREIGN}/{place}/{path.name}"
