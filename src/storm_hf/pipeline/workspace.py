"""Where shards lie. A file that exists is complete."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_hf.writing import written_whole


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that a person can read, complete or not at all, the same bytes for the same content."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Workspace:
    """A folder with one folder of shards per step.

    Args:
        root (`Path`):
            The folder. It need not exist yet.
    """

    root: Path

    def shard(self, step: str, name: str) -> Path:
        """Path of a shard, whether it exists or not."""
        return self.root / step / name

    def shards(self, step: str) -> list[Path]:
        """The complete shards of a step, sorted by name."""
        return sorted(path for path in (self.root / step).glob("*") if not path.name.startswith("."))

    def remove_unfinished(self, step: str) -> None:
        """Remove what a killed run left half written. No other process may be writing there."""
        for path in (self.root / step).glob(".*.unfinished"):
            path.unlink(missing_ok=True)
