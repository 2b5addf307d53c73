"""Folder of a built data set: its manifest, its shards, and the source of each row's clip."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storm_hf.atomic import read_json
from storm_hf.errors import DatasetError
from storm_hf.hub.known_files import files_of, inside


if TYPE_CHECKING:
    import pyarrow

MANIFEST = "manifest.json"
STATISTICS = "whitening.safetensors"
FINGERPRINT = "fingerprint.json"
DATA = "data"
CLIP_COLUMNS = ("clip_source", "clip_license", "clip_file")  # provenance, in the shards of builds and of pushes
WORK = ("work/", ".locks/")  # of a build, for itself
_RECORDS = "work/30_thought_videos"
_NOT_KNOWN = ("unknown", "unknown", "")
_SIMULATOR = "simulator"  # the source of a thought video that was drawn together with its clip


@dataclass(frozen=True)
class ClipOrigin:
    """Source of a row's clip.

    Args:
        source (`str`):
            Name of the collection.
        license (`str`):
            Licence of the clip.
        file (`str`):
            Name of the file in the collection, which is the reference where the clip itself is not published.
    """

    source: str
    license: str
    file: str


@dataclass(frozen=True)
class RecordedClip:
    """The origin of a clip, and the files outside of the data set that it may be read from.

    Args:
        origin ([`ClipOrigin`]):
            Source of the clip.
        files (`frozenset[Path]`):
            Resolved paths that the build recorded for the row.
    """

    origin: ClipOrigin
    files: frozenset[Path]


def rows_folder(place: str | Path) -> Path:
    """Folder of a data set, also where the run of a demo is named, which has it in `data`."""
    nested = Path(place, "data")
    return nested if (nested / MANIFEST).is_file() else Path(place)


def is_of_builder(place: Path) -> bool:
    """Check that a folder is one of a builder, finished or not, or of a demo, and not of rows of one's own."""
    return any((rows_folder(place) / name).exists() for name in (MANIFEST, FINGERPRINT, *WORK))


@dataclass(frozen=True)
class DatasetFolder:
    """A complete data set of thoughts on this machine.

    Args:
        path (`Path`):
            Folder of a builder.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> "DatasetFolder":
        """Make sure that a folder holds a complete data set.

        Raises:
            DatasetError: If it holds something else; the message says what to do.
        """
        if (path / MANIFEST).is_file():
            return cls(path.resolve())
        if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
            raise DatasetError(
                f"Expected the folder of a data set but {path} holds a model. Publish it with `storm push`, or `CheckpointPush`."
            )
        raise DatasetError(
            f"Expected a complete data set in {path} but there is no {MANIFEST}, nor the config.json of a model. Name the folder that has "
            "one, or run the builder to the end; it continues."
        )

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Manifest, which the builder wrote last."""
        return read_json(self.path / MANIFEST)

    @property
    def shards(self) -> list[Path]:
        """The Parquet files that the manifest names, in order.

        Raises:
            DatasetError: If one is missing.
        """
        names = sorted(name for name in self.manifest["sha256"] if name.startswith(f"{DATA}/"))
        if missing := [name for name in names if not (self.path / name).is_file()]:
            raise DatasetError(
                f"Expected {missing[0]}, which {MANIFEST} of {self.path} names, but it is not there. Remove {MANIFEST} and "
                "build again."
            )
        return [inside(self.path, name) for name in names]

    def clips(self, table: "pyarrow.Table") -> list["RecordedClip"]:
        """Read the provenance of each row's clip off the row's own columns, or off the records of its build.

        Args:
            table ([`~pyarrow.Table`]):
                Rows of the shard. Without provenance, the licence of a clip is unknown, unless a simulator
                drew it together with the thought video.
        """
        names = ("id", "license", "thought_source", *CLIP_COLUMNS)
        rows = table.select([name for name in names if name in table.column_names]).to_pylist()
        return [self._clip(row) for row in rows]

    def _clip(self, row: dict[str, Any]) -> "RecordedClip":
        recorded = self._recorded.get(row["id"])
        files = recorded.files if recorded else frozenset()
        if set(CLIP_COLUMNS) <= set(row):
            origin = ClipOrigin(
                *(row[name] or default for name, default in zip(CLIP_COLUMNS, _NOT_KNOWN, strict=True))
            )
            return RecordedClip(origin, files)
        if recorded is None and not self._has_records and row.get("thought_source") == _SIMULATOR:
            return RecordedClip(ClipOrigin("worlds", row["license"], ""), files)
        return recorded or RecordedClip(ClipOrigin(*_NOT_KNOWN), files)

    @property
    def _has_records(self) -> bool:
        return (self.path / _RECORDS).is_dir()

    @cached_property
    def _recorded(self) -> dict[str, "RecordedClip"]:
        records = sorted((self.path / _RECORDS).glob("*.jsonl"))
        return {record["annotation"]["id"]: self._read(record) for path in records for record in _kept(path)}

    def _read(self, record: dict[str, Any]) -> "RecordedClip":
        annotation = record["annotation"]
        origin = ClipOrigin(
            source=annotation["source"] or "unknown",
            license=annotation["license"] or "unknown",
            file=Path(annotation["video"]).name,
        )
        names = (annotation["video"], record.get("video"))
        return RecordedClip(origin, frozenset((self.path / name).resolve() for name in names if name))

    def left_out(self, published: Iterable[str]) -> tuple[str, ...]:
        """Files of the folder that no push of it publishes; its working files and its videos are not counted.

        Args:
            published (`Iterable[str]`):
                Paths of those that are published.
        """
        known = {*published, MANIFEST, FINGERPRINT, STATISTICS}
        return tuple(
            name for name in files_of(self.path) if name not in known and not name.startswith((*WORK, "videos/"))
        )


def _kept(path: Path) -> Iterator[dict[str, Any]]:
    """The records of rows that were not refused."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if (record := json.loads(line)).get("annotation"):
                yield record
