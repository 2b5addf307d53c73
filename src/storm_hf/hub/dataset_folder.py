"""What a built data set says about itself: its manifest, its shards, and where the clip of each row comes from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from storm_hf.errors import DatasetError
from storm_hf.writing import read_json


MANIFEST = "manifest.json"
STATISTICS = "whitening.safetensors"
FINGERPRINT = "fingerprint.json"
DATA = "data"
_RECORDS = "work/30_thought_videos"


@dataclass(frozen=True)
class ClipOrigin:
    """Where the clip of a row comes from.

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
class DatasetFolder:
    """A complete data set of thoughts on this machine.

    Args:
        path (`Path`):
            What a builder wrote.
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
            f"Expected a complete data set in {path} but there is no {MANIFEST}. Run its builder to the end; it continues."
        )

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the builder wrote last."""
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
        return [self.path / name for name in names]

    @cached_property
    def _origins(self) -> dict[str, ClipOrigin]:
        records = sorted((self.path / _RECORDS).glob("*.jsonl"))
        return {annotation["id"]: _origin(annotation) for path in records for annotation in _annotations(path)}

    def origin(self, row_id: str, thought_license: str) -> ClipOrigin:
        """Where the clip of a row comes from.

        Args:
            row_id (`str`):
                The row.
            thought_license (`str`):
                Licence of its thought video. In a data set without annotations a simulator drew both.
        """
        if not (self.path / _RECORDS).is_dir():
            return ClipOrigin(source="worlds", license=thought_license, file="")
        return self._origins.get(row_id) or ClipOrigin(source="unknown", license="unknown", file="")


def _annotations(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if annotation := json.loads(line).get("annotation"):
                yield annotation


def _origin(annotation: dict[str, Any]) -> ClipOrigin:
    return ClipOrigin(
        source=annotation["source"] or "unknown",
        license=annotation["license"] or "unknown",
        file=Path(annotation["video"]).name,
    )
