"""Names of a build's steps, and the records from which its progress is read.

`storm build status` imports this file and not the steps, which need numpy, torch and the decoders of videos.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from storm_hf.atomic import read_json
from storm_hf.pipeline.workspace import Workspace


ANNOTATIONS = "work/10_annotations"
PROMPTS = "work/20_prompts"
THOUGHTS = "work/30_thought_videos"
SELECTION_STEP = "work/35_selection"

INDEX = "index.json"
REJECTED = "rejected.jsonl"
SELECTION_FILE = "selection.json"
EARLIER = "earlier.json"  # the selection before rows were taken up again

_BEGINNING_OF_ROW = '{"annotation": '  # keys are sorted, and a refused row has no annotation


@dataclass(frozen=True)
class Plan:
    """The shards of rows that a build goes through.

    Args:
        num_rows (`dict[str, int]`):
            From the name of each shard to its rows. Shards are named by split and number: `train-00000`.
    """

    num_rows: dict[str, int]

    @classmethod
    def load(cls, workspace: Workspace) -> "Plan | None":
        """Read the index, or None where the annotations have not been read to their end."""
        path = workspace.shard(ANNOTATIONS, INDEX)
        return cls(read_json(path)["num_rows"]) if path.exists() else None

    def shards_of(self, split: str) -> list[str]:
        """Names of the shards of a split, in their order."""
        return sorted(name for name in self.num_rows if split_of(name) == split)


def split_of(shard: str) -> str:
    """The split that a shard belongs to."""
    return shard.rpartition("-")[0]


@dataclass(frozen=True)
class Selection:
    """Rows that become data, and their shards.

    Args:
        frame_size (`tuple[int, int]`):
            Height and width of all thought videos that were kept.
        refused (`dict[str, str]`):
            From the id of a row to the reason why it is not among the data.
        shards (`dict[str, str]`):
            From the name of each shard of data to that of the records it is made of. Those of which nothing is left are not
            among them.
        num_rows (`dict[str, int]`):
            From the name of each shard of data to its rows.
    """

    frame_size: tuple[int, int]
    refused: dict[str, str]
    shards: dict[str, str]
    num_rows: dict[str, int]

    @classmethod
    def load(cls, workspace: Workspace) -> "Selection | None":
        """Read what was decided, or None before."""
        path = workspace.shard(SELECTION_STEP, SELECTION_FILE)
        return cls(**read_json(path)) if path.exists() else None


def record_path(workspace: Workspace, step: str, shard: str) -> Path:
    """Path of the records of a shard at a step."""
    return workspace.shard(step, f"{shard}.jsonl")


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
            Line of its source, where it could not be read.
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
        """Kind of the reason: the text before its colon. Kinds are counted."""
        return self.reason.partition(":")[0]


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
