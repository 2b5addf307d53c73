"""Annotation files and clips of a build, and the changes in them since it was begun."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from storm_hf.annotations import Annotation, read_annotations
from storm_hf.atomic import read_json, write_json
from storm_hf.builder.progress import read_refused
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.builder.row_steps import Row, read_records
from storm_hf.errors import DatasetError, StaleWorkError
from storm_hf.pipeline.workspace import Workspace, read_fingerprint


_INDEX, _REJECTED = "index.json", "rejected.jsonl"
_KINDS = ("new", "changed", "removed")


def check_sources(recipe: ThoughtsRecipe, workspace: Workspace, step: str, parameters: Mapping[str, Any]) -> None:
    """Make sure that the files of annotations are those that a folder was begun with.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Recipe of the build.
        workspace ([`Workspace`]):
            The data set.
        step (`str`):
            Name of the step that reads annotations.
        parameters (`Mapping[str, Any]`):
            Parameters that determine the rows now.

    Raises:
        DatasetError: If a file is missing.
        StaleWorkError: If the contents of a file, and nothing else, have changed since. The message counts the new rows.
    """
    known = read_fingerprint(workspace.root).get(step, {}).get("parameters")
    if not known or known["sources"].keys() != parameters["sources"].keys():
        return
    hash_of = {
        new["path"]: new["sha256"]
        for split, sources in parameters["sources"].items()
        for old, new in zip(known["sources"][split], sources, strict=False)
        if old["path"] == new["path"] and old["sha256"] != new["sha256"]
    }
    if missing := [path for path, found in hash_of.items() if found is None]:
        raise DatasetError(
            f"There is no file {' and no file '.join(missing)} any more, which {workspace.root} was begun with. Put it back, or "
            f"take it out of the recipe and give `--out {workspace.root}-2`."
        )
    if changed := list(hash_of):
        raise StaleWorkError(_explanation(recipe, workspace, step, changed))


def _explanation(recipe: ThoughtsRecipe, workspace: Workspace, step: str, changed: list[str]) -> str:
    names, folder = " and ".join(changed), workspace.root
    has = "has" if len(changed) == 1 else "have"
    if not workspace.shard(step, _INDEX).exists():
        return f"{names} {has} changed while {folder} was begun. Nothing is built yet: remove {folder} and give the same command."
    counts = _changes(recipe, workspace, step)
    what = ", ".join(
        f"{counts[kind]} {kind} {'row' if counts[kind] == 1 else 'rows'}" for kind in _KINDS if counts[kind]
    )
    return (
        f"{names} {has} changed since {folder} was begun: {what or 'the same rows in another form or order'}. A build is not "
        f"extended: give the same command with `--out {folder}-2`, which builds all rows, or put the earlier file back."
    )


def _changes(recipe: ThoughtsRecipe, workspace: Workspace, step: str) -> Counter[str]:
    """Count the rows by what became of them. A row that was refused before and is the same now is no change."""
    known = _known_rows(workspace, step)
    refused = {row.id for row in read_refused(workspace.shard(step, _REJECTED))}
    counts: Counter[str] = Counter()
    for source in (source for split in recipe.splits for source in recipe.sources[split]):
        for row in read_annotations(source, reads_evidence=recipe.shows_evidence):
            if not isinstance(row, Annotation):
                continue
            if row.id in known:
                counts["changed"] += _comparable(row) != known.pop(row.id)
            elif row.id not in refused:
                counts["new"] += 1
    counts["removed"] = len(known)
    return counts


def _known_rows(workspace: Workspace, step: str) -> dict[str, Annotation]:
    shards = read_json(workspace.shard(step, _INDEX))["num_rows"]
    records = (
        record for name in shards for record in read_records(workspace.shard(step, f"{name}.jsonl"), workspace.root)
    )
    return {row.annotation.id: _comparable(row.annotation) for row in records if isinstance(row, Row)}


def _comparable(annotation: Annotation) -> Annotation:
    return replace(annotation, video=annotation.video.absolute())


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
            "rows with `--out %s-2`.",
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
