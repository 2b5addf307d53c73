"""Size and time of each clip when a build was begun, by which one that was replaced is noticed."""

import logging
from collections.abc import Iterable
from pathlib import Path

from storm_hf.builder.records import Row
from storm_hf.pipeline.workspace import Workspace
from storm_hf.writing import read_json, write_json


CLIPS = "work/15_clips"
_MOST_NAMED = 5

logger = logging.getLogger(__name__)


def write_stamps(workspace: Workspace, shard: str, rows: Iterable[Row]) -> None:
    """Record size and time of the clips of a shard.

    Args:
        workspace ([`Workspace`]):
            The data set.
        shard (`str`):
            Name of the shard.
        rows (`Iterable[Row]`):
            Its rows.
    """
    clips = {row.annotation.video for row in rows}
    stamps = {str(clip): stamp for clip in sorted(clips) if (stamp := _stamp(clip)) is not None}
    write_json(workspace.shard(CLIPS, f"{shard}.json"), stamps)


def renew_stamps(workspace: Workspace, shard: str) -> None:
    """Record the clips of a shard anew, whose rows are taken up again."""
    path = workspace.shard(CLIPS, f"{shard}.json")
    known = read_json(path) if path.exists() else {}
    renewed = {clip: stamp for clip in known if (stamp := _stamp(Path(clip))) is not None}
    if renewed != known:
        write_json(path, renewed)


def warn_of_replaced_clips(workspace: Workspace, shards: Iterable[str]) -> list[str]:
    """Log the names of clips whose file is another one than when the build was begun, or their rows were last taken up again.

    A clip that is missing is not among them: a build stops at it, or does not need it any more.

    Returns:
        `list[str]`: Their paths.
    """
    replaced: dict[str, None] = {}
    for shard in shards:
        path = workspace.shard(CLIPS, f"{shard}.json")
        for clip, stamp in (read_json(path) if path.exists() else {}).items():
            if _stamp(Path(clip)) not in (None, stamp):
                replaced[clip] = None
    if replaced:
        names = list(replaced)
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        logger.warning(
            "%d %s replaced since %s was begun: %s%s. Rows that are made keep the earlier file. Put it back, or build all "
            "rows with `--output_dir %s-2`.",
            *(len(names), "clip was" if len(names) == 1 else "clips were", workspace.root),
            *(", ".join(names[:_MOST_NAMED]), more, workspace.root),
        )
    return list(replaced)


def _stamp(clip: Path) -> list[int] | None:
    """Size and time of a file; None where there is none."""
    try:
        status = clip.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
