"""Shards as they are published: features with references, and beside them the clips that may be passed on.

data/train-00000-of-00008.parquet      every row, no video: the configuration `features`
videos/train-00000-of-00008.parquet    the rows with videos, their bytes inside: the configuration `videos`

The same shard gives the same bytes, so that it is uploaded once.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from storm_hf.atomic import written_atomically
from storm_hf.errors import DatasetError, PublicationError
from storm_hf.hub.contents import is_video
from storm_hf.hub.dataset_folder import CLIP_COLUMNS, ClipOrigin, DatasetFolder, RecordedClip
from storm_hf.hub.leak_checks import check_texts, last_name
from storm_hf.hub.licenses import LicenseRule
from storm_hf.optional import require


if TYPE_CHECKING:
    import datasets
    import pyarrow


VIDEOS = "videos"
_WORDS = ("id", "question", "options", "answer")
_ROWS_PER_GROUP = 16  # rows whose videos are in memory at a time
_FEATURES = "thought_features"
_FOREIGN = "videos/clips"  # published place of a clip that lies outside of the data set


@dataclass(frozen=True)
class ShardPlan:
    """Published parts of each row of a shard.

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
        """Number of unpublished clips per licence."""
        pairs = zip(self.origins, self.clips, strict=True)
        return Counter(origin.license for origin, clip in pairs if clip is None)


def plan_shard(
    folder: DatasetFolder, shard: Path, rule: LicenseRule, *, embeds: bool, with_features: bool = True
) -> ShardPlan:
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
        with_features (`bool`, *optional*, defaults to `True`):
            Whether to read the thought features too, which are most of the shard.

    Raises:
        DatasetError: If a video is missing.
        PublicationError: If a row names a file that is no video of this data set, or holds what must not be published.
    """
    parquet = require("pyarrow.parquet")
    names = [name for name in parquet.read_schema(shard).names if with_features or name != _FEATURES]
    table = parquet.read_table(shard, columns=names)
    recorded = folder.clips(table)
    clips: list[Path | None] = []
    thoughts: list[Path | None] = []
    columns = (table[name].to_pylist() for name in ("video", "thought_video", "license"))
    for place, clip, thought, of_thought in zip(recorded, *columns, strict=True):
        may_clip = embeds and rule.permits(place.origin.license)
        clips.append(_found(folder, clip, place) if may_clip and clip else None)
        thoughts.append(_found(folder, thought, place) if may_clip and thought and rule.permits(of_thought) else None)
    return ShardPlan(table, [place.origin for place in recorded], clips, thoughts)


def check_rows(plan: ShardPlan, folder: DatasetFolder, shard: str) -> None:
    """Look through all words of a shard, as they will be published.

    Raises:
        PublicationError: If they hold a credential or a path of this machine, or a column holds bytes.
    """
    pyarrow = require("pyarrow")
    table = _published_table(plan, folder)
    for name in table.column_names:
        if name == _FEATURES:
            continue
        place = f"the column {name} of {shard}"
        check_texts(_texts(pyarrow.types, table[name].combine_chunks(), place), place)


def write_features(plan: ShardPlan, folder: DatasetFolder, path: Path) -> None:
    """Write the rows of a shard without any video, with the licence and the name of each row's clip.

    Raises:
        PublicationError: If a text holds a credential or a path of this machine.
    """
    check_rows(plan, folder, path.name)
    features = require("datasets").Features.from_arrow_schema(plan.table.schema)
    features.update({name: require("datasets").Value("string") for name in CLIP_COLUMNS})
    metadata = features.arrow_schema.metadata
    require("pyarrow.parquet").write_table(_published_table(plan, folder).replace_schema_metadata(metadata), path)


def _published_table(plan: ShardPlan, folder: DatasetFolder) -> Any:
    """The table of a shard with the names of its videos as they are published, and the provenance of each clip."""
    pyarrow = require("pyarrow")
    table = plan.table
    values = {
        "video": [_name(folder, clip) for clip in plan.clips],
        "thought_video": [_name(folder, thought) for thought in plan.thoughts],
        "encoder": [last_name(name) for name in table["encoder"].to_pylist()],
        **{
            name: [last_name(getattr(origin, name.removeprefix("clip_"))) for origin in plan.origins]
            for name in CLIP_COLUMNS
        },
    }
    for name, column in values.items():
        array = pyarrow.array(column, pyarrow.string())
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, array)
        else:
            table = table.append_column(name, array)
    return table


def _texts(types: ModuleType, column: "pyarrow.Array", place: str) -> list[str | None]:
    """All texts of a column, within lists and tables too."""
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind):
        return list(column.to_pylist())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _texts(types, column.flatten(), place)
    if types.is_map(kind):
        return [*_texts(types, column.keys, place), *_texts(types, column.items, place)]
    if types.is_struct(kind):
        return [text for part in column.flatten() for text in _texts(types, part, place)]
    if types.is_dictionary(kind):
        return _texts(types, column.dictionary, place)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_temporal(kind):
        return []
    if types.is_null(kind) or types.is_decimal(kind):
        return []
    raise PublicationError(
        f"Expected texts and numbers in the rows but {place} holds {kind}, which cannot be looked into. Remove the column."
    )


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


def _found(folder: DatasetFolder, name: str, recorded: RecordedClip) -> Path:
    """The file of a video, if it lies in the data set or is the very one that the build recorded for the row."""
    path = folder.path / name
    place = path.resolve()
    if not (place.is_relative_to(folder.path) or place in recorded.files):
        raise PublicationError(
            f"Expected the videos of this data set but a row names {last_name(name)!r}, a file outside of it that its build did "
            "not record. Build the data set here, with copies of its clips, or publish without videos: --reference."
        )
    if not path.is_file():
        raise DatasetError(
            f"Expected the video {name}, which a row names, but it is not there. Restore it, or publish without videos: "
            "--reference."
        )
    if not is_video(path):
        raise PublicationError(
            f"Expected a video in {last_name(name)!r}, which a row names, but the file is none. Remove the row, or publish "
            "without videos: --reference."
        )
    return place


def _name(folder: DatasetFolder, path: Path | None) -> str | None:
    """Name of a video in the published data set, without any local path."""
    if path is None:
        return None
    if path.is_relative_to(folder.path):
        return path.relative_to(folder.path).as_posix()
    place = sha256(str(path.parent).encode()).hexdigest()[:8]  # clips of two folders may have one name
    return f"{_FOREIGN}/{place}/{path.name}"


_COLUMNS = ("video", "thought_video")
_ROWS_READ = 16  # rows whose videos are in memory at a time


def is_published(rows: "datasets.Dataset") -> bool:
    """Return True if the rows of a [`~datasets.Dataset`] are features that `storm push` published."""
    return set(CLIP_COLUMNS) <= set(rows.column_names)


def with_clips(rows: "datasets.Dataset") -> "datasets.Dataset":
    """The rows of a [`~datasets.Dataset`] whose clip was published; a warning counts the others.

    Raises:
        DatasetError: If no clip was published.
    """
    kept = [number for number, clip in enumerate(rows["video"]) if clip]
    if not kept:
        raise DatasetError(
            "Expected rows with clips but none of their clips was published. Bring the clips that `clip_file` names, and "
            "build the data set from them."
        )
    if num_missing := len(rows) - len(kept):
        warnings.warn(
            f"{num_missing} of {len(rows)} rows are left out: the licence of their clip did not let it be published.",
            stacklevel=3,
        )
        rows = rows.select(kept)
    return rows


def fetch_videos(repo: str, revision: str | None = None) -> Path:
    """Download the videos of a data set that `storm push` published, once, and write them to files.

    Args:
        repo (`str`):
            Name of the repository.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `Path`: The folder that the paths in the data set are relative to. Videos that were withheld are not in it.
    """
    from huggingface_hub import constants, snapshot_download

    snapshot = Path(
        snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=f"{VIDEOS}/*.parquet")
    )
    folder = Path(constants.HF_HOME, "storm", "videos", repo.replace("/", "--"), snapshot.name)
    for shard in sorted((snapshot / VIDEOS).glob("*.parquet")):
        unpack(shard, folder)
    return folder


def unpack(shard: Path, folder: Path) -> None:
    """Write the videos inside a Parquet file to files, except those that are there.

    Raises:
        DatasetError: If a video's path leads out of the folder.
    """
    file = require("pyarrow.parquet").ParquetFile(shard)
    for batch in file.iter_batches(batch_size=_ROWS_READ, columns=list(_COLUMNS)):
        for row in batch.to_pylist():
            for video in filter(None, row.values()):
                _write(video, folder, shard)


def _write(video: dict[str, Any], folder: Path, shard: Path) -> None:
    path = Path(os.path.normpath(folder / video["path"]))
    if not path.is_relative_to(folder):
        raise DatasetError(
            f"Expected paths inside the data set but a row of {shard.name} has {video['path']!r}. Do not trust this data "
            "set; tell its owner."
        )
    if not path.exists():
        with written_atomically(path) as unfinished:
            unfinished.write_bytes(video["bytes"])
